//! Faults that are injected into VMs.

use crate::member::VmHandle;
use crate::state::SoakState;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;
use testkit::fake_vmm::{Behaviour, Boot, FakeVmm, Guest, Manner};
use tokio::time::{Instant, sleep};

/// Maximum duration of a fault, in milliseconds.
const LONGEST_MS: u64 = 8_000;

/// Time during which the daemon may still take a replaced VM for its successor: until the next full scan of the
/// directory, every 5 s.
const RESCAN: Duration = Duration::from_secs(6);

/// Time after the start of a pause in which dials are permitted: a call may dial up to 1 s after the last answer, and
/// the machine may be busy.
const LAST_DIALS: Duration = Duration::from_secs(3);

/// Longest time without a socket while a guest reboots, in milliseconds.
const ABSENCE_MS: u64 = 2_000;

/// Fault with its duration.
#[derive(Debug, Clone)]
pub(super) struct VmFault {
    kind: FaultKind,
    lasts: Duration,
}

#[derive(Debug, Clone)]
enum FaultKind {
    /// Guest that answers in this manner.
    Answers(Manner),
    /// VMM that treats every connection in this way.
    Behaves(Behaviour),
    /// Connections that all break.
    Cut,
    /// Agent that restarts; connections break.
    AgentRestarts,
    /// Guest that is reset; connections stay open and silent.
    Reset,
    /// VMM that is killed, and started again after the duration.
    Killed,
    /// VM that is shut down, and started again after the duration.
    Vanishes,
    /// VM whose name another VM takes; it continues to run for the duration.
    Replaced,
    /// VMM that removes its socket and creates it again after this time; then the guest boots.
    RecreatesSocket(Duration),
    /// VMM that is killed; the next one leaves `CONNECT` unanswered while its guest boots.
    BootsSilently,
    /// Guest that is paused, and resumed after the duration.
    Paused,
    /// Guest with so little processor time that each answer takes this long.
    Starved(Duration),
    /// Guest without memory: programs hang, then the agent is killed, and another one starts.
    OutOfMemory,
}

impl VmFault {
    /// Draws a fault at random.
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let kind = match rng.random_range(0..27) {
            0 => FaultKind::Answers(Manner::Mute),
            1 => FaultKind::Answers(Manner::Slow(Duration::from_millis(rng.random_range(10..400)))),
            2 => FaultKind::Answers(Manner::LosesReplies),
            3 => FaultKind::Answers(Manner::Truncates),
            4 => FaultKind::Answers(Manner::Garbles),
            5 => FaultKind::Answers(Manner::Oversizes),
            6 => FaultKind::Answers(Manner::Repeats),
            7 => FaultKind::Answers(Manner::Dribbles(Duration::from_millis(20))),
            8 => FaultKind::Behaves(Behaviour::Refuses),
            9 => FaultKind::Behaves(Behaviour::NeverGrants),
            10 => FaultKind::Behaves(Behaviour::Grants(b"OK\n".to_vec())),
            11 => FaultKind::Behaves(Behaviour::Grants(vec![b'O'; 10_000])),
            12 => FaultKind::Behaves(Behaviour::Silent),
            13 => FaultKind::Behaves(Behaviour::HangsUp),
            14 => FaultKind::Behaves(Behaviour::SpeaksFirst(b"\0\0\0\x02{}".to_vec())),
            15 => FaultKind::Cut,
            16 => FaultKind::AgentRestarts,
            17 => FaultKind::Reset,
            18 => FaultKind::Killed,
            19 => FaultKind::Vanishes,
            20 => FaultKind::Answers(Manner::Hangs),
            21 => {
                FaultKind::RecreatesSocket(Duration::from_millis(rng.random_range(0..ABSENCE_MS)))
            }
            22 => FaultKind::BootsSilently,
            23 => FaultKind::Paused,
            24 => FaultKind::Starved(Duration::from_millis(rng.random_range(500..3_000))),
            25 => FaultKind::OutOfMemory,
            _ => FaultKind::Replaced,
        };
        Self { kind, lasts: Duration::from_millis(rng.random_range(50..LONGEST_MS)) }
    }

    /// Returns the name of the fault in the report.
    pub(super) fn name(&self) -> String {
        match &self.kind {
            FaultKind::Answers(manner) => word(manner),
            FaultKind::Behaves(behaviour) => word(behaviour),
            kind => word(kind),
        }
    }

    /// Injects the fault, and ends it after its duration. `was_calm` is true if the VM was healthy before, so the
    /// daemon had no failure to report.
    pub(super) async fn run(
        &self,
        body: &mut VmHandle,
        world: &SoakState,
        was_calm: bool,
    ) -> std::io::Result<()> {
        let member = body.member();
        let guest = member.guest();
        match &self.kind {
            FaultKind::Answers(manner) => self.answers(&guest, *manner).await,
            FaultKind::Starved(pause) => self.answers(&guest, Manner::Slow(*pause)).await,
            FaultKind::Behaves(behaviour) => {
                body.switch_to(behaviour.clone());
                sleep(self.lasts).await;
                body.switch_to(Behaviour::Guest(guest));
            }
            FaultKind::Cut => {
                if let Some(vmm) = body.vmm() {
                    vmm.cut();
                }
            }
            FaultKind::AgentRestarts => {
                reborn(body, world, false);
                if let Some(vmm) = body.vmm() {
                    vmm.cut();
                }
            }
            FaultKind::OutOfMemory => {
                self.answers(&guest, Manner::Hangs).await;
                let life = world.next_life();
                member.begins(life, Duration::ZERO);
                guest.loses_its_agent(life);
                if let Some(vmm) = body.vmm() {
                    vmm.cut();
                }
            }
            FaultKind::Reset => _ = reborn(body, world, true),
            FaultKind::Paused => self.paused(body, world, was_calm).await,
            FaultKind::Killed => {
                member.may_be_gone();
                body.die();
                sleep(self.lasts).await;
                reborn(body, world, true);
                body.appear(Behaviour::Guest(guest))?;
            }
            FaultKind::BootsSilently => {
                member.may_be_gone();
                body.die();
                reborn(body, world, true);
                let boot = Boot::of(guest);
                body.appear(Behaviour::Boots(boot.clone()))?;
                sleep(self.lasts).await;
                boot.completes();
            }
            FaultKind::RecreatesSocket(absent) => {
                self.recreates(body, world, *absent, was_calm).await?;
            }
            FaultKind::Vanishes => {
                member.may_be_gone();
                body.vanish()?;
                sleep(self.lasts).await;
                reborn(body, world, true);
                body.appear(Behaviour::Guest(guest))?;
            }
            FaultKind::Replaced => {
                member.may_be_gone();
                let life = world.next_life();
                member.begins(life, RESCAN);
                let successor = guest.successor(life);
                member.succeeded_by(successor.clone());
                let old = body.appear(Behaviour::Guest(successor))?;
                sleep(self.lasts).await;
                if let Some(old) = old {
                    old.crash();
                }
            }
        }
        Ok(())
    }

    async fn answers(&self, guest: &Guest, manner: Manner) {
        guest.behave(manner);
        sleep(self.lasts).await;
        guest.behave(Manner::Well);
    }

    /// Pauses the guest. If the daemon has a connection, it must not dial the VM meanwhile.
    async fn paused(&self, body: &VmHandle, world: &SoakState, was_calm: bool) {
        let (guest, lasts) = (body.member().guest(), LAST_DIALS + self.lasts);
        let dialled = || body.vmm().map(FakeVmm::accepted);
        guest.pause();
        let began = Instant::now();
        sleep(LAST_DIALS).await;
        let before = dialled();
        sleep(lasts.saturating_sub(began.elapsed())).await;
        let after = dialled();
        guest.resume();
        if was_calm && after != before {
            let name = &body.member().name;
            let text = format!("{name} was dialled while it was paused: {before:?}, {after:?}");
            world.journal.violation(text);
        }
    }

    /// Reboots the guest as Cloud Hypervisor does.
    async fn recreates(
        &self,
        body: &mut VmHandle,
        world: &SoakState,
        absent: Duration,
        was_calm: bool,
    ) -> std::io::Result<()> {
        let member = body.member();
        let Some(vmm) = body.vmm_mut() else { return Ok(()) };
        let is_other_process = vmm.has_process();
        if is_other_process {
            // After this, the process of the soak test listens, so the daemon sees another VM.
            member.may_be_gone();
        }
        vmm.remove_socket().await?;
        sleep(absent).await;
        let life = reborn(body, world, true);
        let boot = Boot::of(member.guest());
        if let Some(vmm) = body.vmm_mut() {
            vmm.create_socket(Behaviour::Boots(boot.clone()))?;
        }
        sleep(self.lasts).await;
        if was_calm && !is_other_process {
            member.must_be_told(life);
        }
        boot.completes();
        Ok(())
    }
}

fn reborn(body: &VmHandle, world: &SoakState, reboots: bool) -> u64 {
    let life = world.next_life();
    body.member().begins(life, Duration::ZERO);
    body.member().guest().restart(life, reboots);
    life
}

/// Returns the name of the variant.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
}
