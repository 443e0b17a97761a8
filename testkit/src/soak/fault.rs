//! Faults that are injected into VMs.

use super::World;
use super::member::Body;
use crate::fake_vmm::{Behaviour, Manner};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;
use tokio::time::sleep;

/// Maximum duration of a fault, in milliseconds.
const LONGEST_MS: u64 = 8_000;

/// Time during which a replaced VM may still be taken for its successor: until the next full scan of the
/// directory at the latest, which comes every 5 s.
const RESCAN: Duration = Duration::from_secs(6);

/// Fault with its duration.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    kind: Kind,
    lasts: Duration,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The guest answers in this manner.
    Answers(Manner),
    /// The VMM behaves in this way towards every connection.
    Behaves(Behaviour),
    /// All connections break.
    Cut,
    /// The agent restarts; connections break.
    AgentRestarts,
    /// The guest is reset; connections stay silent.
    Reset,
    /// The VMM is killed, and started again after a while.
    Killed,
    /// The VM is shut down, and started again after a while.
    Vanishes,
    /// Another VM takes the name; the old one lives on for a while.
    Replaced,
}

impl Fault {
    /// Draws a fault at random.
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let kind = match rng.random_range(0..22) {
            0 => Kind::Answers(Manner::Mute),
            1 => Kind::Answers(Manner::Slow(Duration::from_millis(rng.random_range(10..400)))),
            2 => Kind::Answers(Manner::LosesReplies),
            3 => Kind::Answers(Manner::Truncates),
            4 => Kind::Answers(Manner::Garbles),
            5 => Kind::Answers(Manner::Oversizes),
            6 => Kind::Answers(Manner::Repeats),
            7 => Kind::Answers(Manner::Dribbles(Duration::from_millis(20))),
            8 => Kind::Behaves(Behaviour::Refuses),
            9 => Kind::Behaves(Behaviour::NeverGrants),
            10 => Kind::Behaves(Behaviour::Grants(b"OK\n".to_vec())),
            11 => Kind::Behaves(Behaviour::Grants(vec![b'O'; 10_000])),
            12 => Kind::Behaves(Behaviour::Silent),
            13 => Kind::Behaves(Behaviour::HangsUp),
            14 => Kind::Behaves(Behaviour::SpeaksFirst(b"\0\0\0\x02{}".to_vec())),
            15 => Kind::Cut,
            16 => Kind::AgentRestarts,
            17 => Kind::Reset,
            18 => Kind::Killed,
            19 => Kind::Vanishes,
            20 => Kind::Answers(Manner::Hangs),
            _ => Kind::Replaced,
        };
        Self { kind, lasts: Duration::from_millis(rng.random_range(50..LONGEST_MS)) }
    }

    /// Returns the name of the fault in the report.
    pub(super) fn name(&self) -> String {
        match &self.kind {
            Kind::Answers(manner) => word(manner),
            Kind::Behaves(behaviour) => word(behaviour),
            kind => word(kind),
        }
    }

    /// Injects the fault, and ends it after its duration.
    pub(super) async fn run(&self, body: &mut Body, world: &World) -> std::io::Result<()> {
        let member = body.member();
        let guest = member.guest();
        match &self.kind {
            Kind::Answers(manner) => {
                guest.behave(*manner);
                sleep(self.lasts).await;
                guest.behave(Manner::Well);
            }
            Kind::Behaves(behaviour) => {
                body.switch_to(behaviour.clone());
                sleep(self.lasts).await;
                body.switch_to(Behaviour::Guest(guest));
            }
            Kind::Cut => {
                if let Some(vmm) = body.vmm() {
                    vmm.cut();
                }
            }
            Kind::AgentRestarts => {
                reborn(body, world, false);
                if let Some(vmm) = body.vmm() {
                    vmm.cut();
                }
            }
            Kind::Reset => reborn(body, world, true),
            Kind::Killed => {
                body.die();
                sleep(self.lasts).await;
                reborn(body, world, true);
                body.appear(guest)?;
            }
            Kind::Vanishes => {
                body.vanish()?;
                sleep(self.lasts).await;
                reborn(body, world, true);
                body.appear(guest)?;
            }
            Kind::Replaced => {
                let life = world.next_life();
                member.begins(life, RESCAN);
                let successor = guest.successor(life);
                member.succeeded_by(successor.clone());
                let old = body.appear(successor)?;
                sleep(self.lasts).await;
                if let Some(old) = old {
                    old.crash();
                }
            }
        }
        Ok(())
    }
}

fn reborn(body: &Body, world: &World, reboots: bool) {
    let life = world.next_life();
    body.member().begins(life, Duration::ZERO);
    body.member().guest().restart(life, reboots);
}

/// Returns the name of the variant.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
}
