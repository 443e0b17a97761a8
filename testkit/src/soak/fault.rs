//! What can be done to a VM.

use super::World;
use super::member::Body;
use crate::fake_vmm::{Behaviour, Manner};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;
use tokio::time::sleep;

/// The longest of those that last, in milliseconds.
const LONGEST_MS: u64 = 8_000;

/// How long a VM that was renamed over may still be taken for its successor: until the next full scan
/// of the directory at the latest, which comes every 5 s.
const RESCAN: Duration = Duration::from_secs(6);

/// One thing to be done.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    kind: Kind,
    lasts: Duration,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The guest answers like this.
    Answers(Manner),
    /// The VMM behaves like this towards every connection.
    Behaves(Behaviour),
    /// All connections break.
    Cut,
    /// The agent is started anew; connections break.
    AgentRestarts,
    /// The guest is reset; connections stay silent.
    Reset,
    /// The VMM is killed, and started anew after a while.
    Killed,
    /// The VM is shut down, and started anew after a while.
    Vanishes,
    /// Another VM takes the name; this one lives on for a while.
    Replaced,
}

impl Fault {
    /// Any of them.
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

    /// What it is called in the report.
    pub(super) fn name(&self) -> String {
        match &self.kind {
            Kind::Answers(manner) => word(manner),
            Kind::Behaves(behaviour) => word(behaviour),
            kind => word(kind),
        }
    }

    /// Does it, and undoes it after its time.
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

/// The variant's own name.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
}
