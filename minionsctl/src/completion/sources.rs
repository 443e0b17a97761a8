//! Values of arguments: names from the daemon, ids of programs from its agents, contexts of the user.

use super::candidates::CandidateSet;
use super::guest_files;
use super::line_client::{LineClient, PATIENCE};
use crate::agent;
use crate::cli::PartialLine;
use crate::client::vm_path;
use crate::config::{ClientConfig, contexts_file, read_contexts};
use crate::contexts::{ContextName, NO_CONTEXT};
use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};
use minions_api::VmName;
use minions_api::declaration::DeclarationList;
use minions_api::exec::{ExecInfoList, ExecState};
use minions_api::label::Labels;
use minions_api::pool::{LeaseList, PoolList};
use minions_api::vm::VmState;
use minions_proto::message::ExecList;
use serde::Deserialize;
use std::ffi::OsStr;

/// Kind of the values of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueSource {
    /// Names of VMs.
    Vm,
    /// Names of VMs and of declarations.
    ConfiguredVm,
    /// `VM` or `USER@VM`.
    SshDestination,
    /// Second and later words of `wait`: names of VMs, or an id.
    WaitWord,
    /// Ids of the programs of a VM.
    Program,
    /// Selectors of labels.
    Label,
    /// `VM:/PATH`.
    GuestFile,
    /// `VM:/PATH`, or a path on this host.
    CopyLocation,
    /// Names of contexts, with or without `default`.
    Context { with_default: bool },
    /// Names of address pools.
    Pool,
    /// Addresses of the leases of a pool.
    LeaseAddress,
    /// Values of a fixed list.
    Fixed(&'static [&'static str]),
}

/// Sources of values for one typed line.
#[derive(Debug)]
pub(super) struct CompletionSources {
    line: LineClient,
}

/// Part of `GET /vms` that completion needs.
#[derive(Debug, Deserialize)]
struct NamedVms {
    vms: Vec<NamedVm>,
}

#[derive(Debug, Deserialize)]
struct NamedVm {
    name: VmName,
    state: VmState,
    #[serde(default)]
    labels: Labels,
}

impl CompletionSources {
    pub(super) fn new(line: PartialLine) -> Self {
        Self { line: LineClient::new(line) }
    }

    /// Returns the values from `source` that begin with the typed word. A source that does not answer has none.
    pub(super) fn values(&self, source: ValueSource, typed: &str) -> Vec<CompletionCandidate> {
        let mut set = CandidateSet::default();
        let added = self.add_values(&mut set, source, typed);
        let mut values: Vec<_> = set
            .into_sorted()
            .into_iter()
            .map(|found| CompletionCandidate::new(found.value).help(Some(found.description.into())))
            .collect();
        if added.is_none() {
            values.clear();
        }
        if source == ValueSource::CopyLocation && !is_in_a_guest(typed) {
            values.extend(PathCompleter::any().stdio().complete(OsStr::new(typed)));
        }
        values
    }

    /// Adds the values from `source` that begin with the typed word. Returns `None` if they are unknown.
    fn add_values(&self, set: &mut CandidateSet, source: ValueSource, typed: &str) -> Option<()> {
        let mut add = |value: &str, description: &str| {
            if value.starts_with(typed) {
                set.add(value.to_owned(), description);
            }
        };
        match source {
            ValueSource::Vm if self.is_program_of_agent() => self.programs_of_agent(add),
            ValueSource::Vm => self.each_vm(|vm| add(vm.name.as_str(), vm.state.as_str())),
            ValueSource::ConfiguredVm => {
                self.each_vm(|vm| add(vm.name.as_str(), vm.state.as_str()))?;
                let list: DeclarationList = self.line.get("/declarations")?;
                let names = list.declarations.iter().map(|stored| &stored.declaration.name);
                // A pattern is not the name of a VM.
                names
                    .filter(|name| name.parse::<VmName>().is_ok())
                    .for_each(|name| add(name, "declared"));
                Some(())
            }
            ValueSource::SshDestination => {
                let user = typed.rsplit_once('@').map(|(user, _)| format!("{user}@"));
                let user = user.unwrap_or_default();
                self.each_vm(|vm| add(&format!("{user}{}", vm.name), vm.state.as_str()))
            }
            ValueSource::WaitWord if self.line.words.has("goal") => {
                self.each_vm(|vm| add(vm.name.as_str(), vm.state.as_str()))
            }
            ValueSource::WaitWord if self.line.words.arguments.len() != 1 => None,
            ValueSource::WaitWord | ValueSource::Program => self.programs(add),
            ValueSource::Label => self.labels(add, typed),
            ValueSource::GuestFile | ValueSource::CopyLocation => match typed.split_once(':') {
                Some((vm, path)) if is_in_a_guest(typed) => {
                    guest_files::add(&self.line, set, &vm.parse().ok()?, path)
                }
                _ => self.each_vm(|vm| add(&format!("{}:", vm.name), vm.state.as_str())),
            },
            ValueSource::Context { with_default } => contexts(add, with_default),
            ValueSource::Pool => {
                let list: PoolList = self.line.get("/pools")?;
                list.pools.iter().for_each(|status| add(&status.pool.name, &status.pool.subnet));
                Some(())
            }
            ValueSource::LeaseAddress => {
                let list: LeaseList = self.line.get("/leases")?;
                for lease in &list.leases {
                    let holder = lease.vm.as_ref().map_or("no VM", |vm| vm.as_str());
                    add(&lease.address.to_string(), holder);
                }
                Some(())
            }
            ValueSource::Fixed(values) => {
                values.iter().for_each(|value| add(value, ""));
                Some(())
            }
        }
    }

    fn each_vm(&self, visit: impl FnMut(&NamedVm)) -> Option<()> {
        let list: NamedVms = self.line.get("/vms")?;
        list.vms.iter().for_each(visit);
        Some(())
    }

    /// Adds the programs of the VM that the line names.
    fn programs(&self, mut add: impl FnMut(&str, &str)) -> Option<()> {
        let vm: VmName = self.line.words.arguments.first()?.parse().ok()?;
        let list: ExecInfoList = self.line.get(&vm_path(&vm, "/execs"))?;
        for info in list.execs {
            if is_file_operation(&info.command, &info.args) {
                continue;
            }
            let state = match info.state {
                ExecState::Running => "running",
                ExecState::Ended => "ended",
                ExecState::Lost => "lost",
            };
            let words = std::iter::once(&info.command).chain(&info.args);
            let command: Vec<_> = words.map(String::as_str).collect();
            add(&info.id, &format!("{state}: {}", command.join(" ")));
        }
        Some(())
    }

    /// Reports whether the word is a program's id, because `--socket` stands for the VM.
    fn is_program_of_agent(&self) -> bool {
        let takes_id = |name: &String| matches!(name.as_str(), "attach" | "kill");
        self.line.words.cli.socket.is_some()
            && self.line.words.command.first().is_some_and(takes_id)
    }

    /// Adds the programs of the agent of `--socket`.
    fn programs_of_agent(&self, mut add: impl FnMut(&str, &str)) -> Option<()> {
        let address = ClientConfig::load(&self.line.words.cli).ok()?.agent?;
        let call = ExecList {};
        let answer = self.line.within_patience(agent::call(&address, &call, PATIENCE))?.ok()?;
        for info in answer.reply.execs {
            if !is_file_operation(&info.command, &info.args) {
                add(&info.id.to_string(), &info.command);
            }
        }
        Some(())
    }

    /// Adds requirements in place of the last one of the typed selector.
    fn labels(&self, mut add: impl FnMut(&str, &str), typed: &str) -> Option<()> {
        let start = typed.rfind(',').map_or(0, |comma| comma + 1);
        let (before, requirement) = typed.split_at(start);
        let keys_alone = requirement.starts_with('!');
        let operator = if requirement.contains("!=") { "!=" } else { "=" };
        let list: NamedVms = self.line.get("/vms")?;
        for (key, value) in list.vms.iter().flat_map(|vm| &vm.labels) {
            if keys_alone {
                add(&format!("{before}!{key}"), "");
            } else {
                add(&format!("{before}{key}{operator}{value}"), "");
            }
        }
        Some(())
    }
}

/// Reports whether the word is `VM:…`, as `cp` and `fs` decide it.
fn is_in_a_guest(typed: &str) -> bool {
    typed.split_once(':').is_some_and(|(vm, _)| !vm.contains('/'))
}

/// Reports whether an exec is an operation on files, which the agent runs with its own program: also the completion of
/// a path is one.
fn is_file_operation(command: &str, args: &[String]) -> bool {
    command == "/proc/self/exe" && args.first().is_some_and(|first| first == "file-op")
}

/// Adds the contexts of the user.
fn contexts(mut add: impl FnMut(&str, &str), with_default: bool) -> Option<()> {
    let file = read_contexts(&contexts_file().ok()?).ok()?;
    for (name, settings) in &file.contexts {
        add(ContextName::as_str(name), &settings.host);
    }
    if with_default {
        add(NO_CONTEXT, "no context");
    }
    Some(())
}
