//! `GET /metrics`: metrics in Prometheus's text format.

use super::problem::ServiceProblems;
use super::state::ApiState;
use crate::metrics::Meters;
use crate::metrics::text::{MEDIA_TYPE, MetricType, MetricsPage};
use crate::vm::Vm;
use crate::vm::process::stat;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use minions_api::vm::{PoolFigures, VmState};
use std::sync::atomic::Ordering;
use std::time::Duration;

const STATES: [VmState; 4] =
    [VmState::Connecting, VmState::Ready, VmState::Unreachable, VmState::Stale];

/// Get metrics in the Prometheus text format
///
/// docs/OPERATIONS.md lists the metrics.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "service",
    responses(
        (status = 200, description = "Metrics, in version 0.0.4 of the text format",
            body = String, content_type = "text/plain"),
        ServiceProblems,
    ),
)]
pub(super) async fn get_metrics(State(api): State<ApiState>) -> Response {
    let mut page = MetricsPage::default();
    let vms = api.registry.vms().unwrap_or_default();
    let vms: Vec<_> =
        vms.values().map(|vm| (vm, vm.state(), vm.client().pool().figures())).collect();
    of_vms(&mut page, &vms);
    of_connections(&mut page, &api);
    of_declared(&mut page, &api);
    of_the_directory(&mut page, &api.meters);
    of_calls(&mut page, &api);
    of_logs(&mut page, &api);
    of_the_daemon(&mut page, &api);
    let media_type = HeaderValue::from_static(MEDIA_TYPE);
    ([(CONTENT_TYPE, media_type)], page.finish()).into_response()
}

/// Writes the states and pools of VMs.
fn of_vms(page: &mut MetricsPage, vms: &[(&Vm, VmState, PoolFigures)]) {
    let mut family = page.family("minions_vms", MetricType::Gauge, "VMs by state.");
    for state in STATES {
        let count = vms.iter().filter(|(_, of, _)| *of == state).count();
        family.figure(&[("state", state.as_str())], count);
    }
    let mut family =
        page.family("minions_vm_ready", MetricType::Gauge, "1 if the agent answers, otherwise 0.");
    for (vm, state, _) in vms {
        family.figure(&[("vm", vm.name().as_str())], u8::from(*state == VmState::Ready));
    }
    let help = "Connections by use: idle, in_use, streams; and callers waiting for one.";
    let mut family = page.family("minions_vm_connections", MetricType::Gauge, help);
    for (vm, _, pool) in vms {
        for (kind, value) in [
            ("idle", pool.idle),
            ("in_use", pool.in_use),
            ("streams", pool.streams),
            ("waiting", pool.waiting),
        ] {
            family.figure(&[("vm", vm.name().as_str()), ("use", kind)], value);
        }
    }
    let streams: usize = vms.iter().map(|(_, _, pool)| pool.streams).sum();
    page.one(
        "minions_execs_in_flight",
        MetricType::Gauge,
        "Programs with an open stream.",
        streams,
    );
}

/// Writes probes, dials, the resources that they use, and events.
fn of_connections(page: &mut MetricsPage, api: &ApiState) {
    let meters = &api.meters;
    let dials = api.registry.dials();
    let help = "Duration of health probes, including failed ones.";
    page.family("minions_probe_duration_seconds", MetricType::Histogram, help)
        .histogram(&[], &meters.probes);
    for (name, help, tally) in [
        ("minions_probe_failures_total", "Probes that failed, by layer.", &meters.failed_probes),
        ("minions_dial_failures_total", "Dials that failed, by layer.", &meters.failed_dials),
    ] {
        let mut family = page.family(name, MetricType::Counter, help);
        for (failure, count) in tally.figures() {
            family.figure(&[("failure", failure)], count);
        }
    }
    page.one("minions_dials_in_flight", MetricType::Gauge, "Dials in progress.", dials.in_flight());
    let help = "Memory in use for replies and output of guests.";
    page.one("minions_guest_bytes_in_flight", MetricType::Gauge, help, dials.budget().used());
    let (taken, limit) = dials.descriptors().figures();
    let help = "File descriptors in use for VMs.";
    page.one("minions_vm_descriptors", MetricType::Gauge, help, taken);
    let help = "File descriptors available to VMs in total.";
    page.one("minions_vm_descriptors_limit", MetricType::Gauge, help, limit);
    let (events, missed, readers) = api.registry.events().figures();
    page.one("minions_events_total", MetricType::Counter, "Events published.", events);
    let help = "Events that slow readers missed, over all readers.";
    page.one("minions_events_missed_total", MetricType::Counter, help, missed);
    page.one("minions_event_readers", MetricType::Gauge, "Clients of GET /events.", readers);
}

/// Writes the agreement of VMs with their declarations.
fn of_declared(page: &mut MetricsPage, api: &ApiState) {
    let help = "VMs with declared settings, by their agreement with them.";
    let mut family = page.family("minions_vms_configured", MetricType::Gauge, help);
    for (state, count) in api.conditions.figures() {
        family.figure(&[("configured", state.as_str())], count);
    }
    let help = "Time from a VM that becomes ready, or from a changed declaration, to the applied configuration.";
    page.family("minions_configuration_duration_seconds", MetricType::Histogram, help)
        .histogram(&[], &api.meters.configured);
}

/// Writes scans of the socket directory.
fn of_the_directory(page: &mut MetricsPage, meters: &Meters) {
    let help =
        "Scans that failed because the socket directory is not trusted or unreadable, by reason.";
    let mut family = page.family("minions_socket_scans_failed_total", MetricType::Counter, help);
    for (reason, count) in meters.refused_scans.figures() {
        family.figure(&[("reason", reason)], count);
    }
    let help = "Files named *.vsock that are ignored, by reason.";
    let mut family = page.family("minions_socket_files_passed_over", MetricType::Gauge, help);
    for (reason, count) in [("name", &meters.wrong_names), ("not_a_socket", &meters.no_sockets)] {
        family.figure(&[("reason", reason)], count.load(Ordering::Relaxed));
    }
}

/// Writes HTTP requests and problems.
fn of_calls(page: &mut MetricsPage, api: &ApiState) {
    let routes = api.meters.routes();
    let help = "Requests by route and status.";
    let mut family = page.family("minions_http_requests_total", MetricType::Counter, help);
    for route in &routes {
        for (status, count) in route.statuses() {
            let status = status.to_string();
            let labels =
                [("method", &*route.method), ("route", &*route.template), ("status", &*status)];
            family.figure(&labels, count);
        }
    }
    let help =
        "Time until the head of the response, by route. Routes without requests are left out.";
    let mut family =
        page.family("minions_http_request_duration_seconds", MetricType::Histogram, help);
    for route in routes.iter().filter(|route| route.statuses().next().is_some()) {
        let labels = [("method", &*route.method), ("route", &*route.template)];
        family.histogram(&labels, &route.durations);
    }
    let mut family =
        page.family("minions_problems_total", MetricType::Counter, "Problems by code.");
    for (code, count) in api.meters.problems.figures() {
        family.figure(&[("code", code)], count);
    }
    let help = "Clients that were turned away because too many were connected.";
    let shed = api.meters.shed.load(Ordering::Relaxed);
    page.one("minions_http_connections_shed_total", MetricType::Counter, help, shed);
}

/// Writes the state of the audit log and the log.
fn of_logs(page: &mut MetricsPage, api: &ApiState) {
    let audit = api.audit.figures();
    let help = "1 if the last audit entry was written, otherwise 0.";
    page.one("minions_audit_writable", MetricType::Gauge, help, u8::from(audit.is_writable));
    let help = "Attempts to write an audit entry that failed.";
    page.one("minions_audit_write_failures_total", MetricType::Counter, help, audit.failures);
    let help = "Audit entries that were never written.";
    page.one("minions_audit_entries_lost_total", MetricType::Counter, help, audit.lost);
    let help = "Lines of the log that were dropped because standard error was not read.";
    page.one(
        "minions_log_lines_dropped_total",
        MetricType::Counter,
        help,
        crate::logging::dropped().log,
    );
}

/// Writes figures of the process. Figures that `/proc` cannot provide, for example without a free descriptor, are left
/// out.
fn of_the_daemon(page: &mut MetricsPage, api: &ApiState) {
    page.family("minions_build_info", MetricType::Gauge, "Always 1.")
        .figure(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let draining = u8::from(api.draining.is_cancelled());
    page.one(
        "minions_draining",
        MetricType::Gauge,
        "1 if the daemon is stopping, otherwise 0.",
        draining,
    );
    if let Some(own) = stat(std::process::id()) {
        let cpu = Duration::from_millis(own.cpu_ms).as_secs_f64();
        page.one("process_cpu_seconds_total", MetricType::Counter, "Processor time.", cpu);
        let help = "Resident memory.";
        page.one("process_resident_memory_bytes", MetricType::Gauge, help, own.rss_bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Without the descriptor of this directory.
        let count = open.count().saturating_sub(1);
        page.one("process_open_fds", MetricType::Gauge, "Open file descriptors.", count);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        page.one("process_max_fds", MetricType::Gauge, "Limit of open file descriptors.", limit);
    }
}
