// The dashboard of this host's VMs. Data from guests is only inserted as text.
"use strict";

const EVERY_MS = 5000;
const SETTLE_MS = 150;
const $ = (id) => document.getElementById(id);

let vms = [];
let chosen = null;
let detailOf = 0;

// Characters that are invisible or change how the text around them is displayed. Line breaks are inserted by this page.
const HIDDEN = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;
const visible = (text) =>
  String(text).replace(HIDDEN, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = visible(text);
  if (className) made.className = className;
  return made;
}

async function ask(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail || response.statusText);
  return body;
}

function ago(moment) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(moment)) / 1000));
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

function row(vm) {
  const line = element("tr");
  line.setAttribute("aria-selected", String(vm.name === chosen));
  const name = element("td");
  name.append(element("button", vm.name));
  const since = element("td", ago(vm.since));
  since.title = vm.since;
  line.append(
    name,
    element("td", vm.state, `state ${vm.state}`),
    since,
    element("td", vm.hostname ?? "–"),
    element("td", vm.agent ? vm.agent.version : "–"),
    element("td", vm.reason ? vm.reason.message : "", "quiet"),
  );
  line.addEventListener("click", () => { location.hash = vm.name; });
  return line;
}

function show() {
  const wanted = $("filter").elements.text.value.trim().toLowerCase();
  const fits = (vm) =>
    [vm.name, vm.hostname, vm.state, vm.reason?.message].some((text) => text?.toLowerCase().includes(wanted));
  const shown = vms.filter(fits);
  const focused = document.activeElement?.closest?.("tbody tr")?.rowIndex;
  $("vms").replaceChildren(...shown.map(row));
  if (focused) $("vms").rows[focused - 1]?.querySelector("button").focus();
  const ready = vms.filter((vm) => vm.state === "ready").length;
  $("count").value = `${ready} of ${vms.length} ready`;
  $("empty").hidden = shown.length > 0;
  $("empty").textContent = vms.length ? "No VM matches the filter." : "No VM has a socket on this host yet.";
}

async function refresh() {
  try {
    vms = (await ask("vms")).vms;
    $("trouble").hidden = true;
    show();
  } catch (error) {
    $("trouble").textContent = visible(`cannot read the VMs from minionsd: ${error.message}`);
    $("trouble").hidden = false;
  }
}

function facts(title, pairs) {
  const list = element("dl");
  for (const [name, value] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    list.append(element("dt", name), element("dd", value));
  }
  return title ? [element("h3", title), list] : [list];
}

function ofStatus(status) {
  const load = status.load && `${status.load.one} ${status.load.five} ${status.load.fifteen}`;
  return facts(null, [
    ["Uptime", ago(new Date(Date.now() - status.uptime_secs * 1000))],
    ["Memory", `${status.memory_used_mb} of ${status.memory_total_mb} MiB`],
    ["Disk", `${status.disk_used_gb} of ${status.disk_total_gb} GiB`],
    ["CPU", status.cpu_percent === undefined ? null : `${status.cpu_percent} %`],
    ["Load", load],
    ["Kernel", status.kernel],
    ["System", status.os?.pretty_name],
    ...(status.interfaces ?? []).map((link) => [link.name, (link.addresses ?? []).join("\n") || "no address"]),
  ]);
}

async function choose(name) {
  chosen = name;
  const turn = ++detailOf;
  show();
  $("detail").hidden = false;
  $("detail").querySelector("h2").textContent = visible(name);
  $("facts").replaceChildren(element("p", "Waiting for the guest …", "quiet"));
  const path = `vms/${encodeURIComponent(name)}`;
  const [known, status] = await Promise.allSettled([ask(path), ask(`${path}/status`)]);
  if (turn !== detailOf) return;
  const parts = [];
  if (known.status === "fulfilled") {
    const vm = known.value;
    parts.push(...facts(null, [
      ["State", `${vm.state} since ${vm.since}`],
      ["Socket", vm.socket],
      ["Agent", vm.agent && `${vm.agent.name} ${vm.agent.version}, protocol ${vm.agent.protocol}`],
      ["Connections", `${vm.pool.in_use} in use, ${vm.pool.idle} idle, ${vm.pool.streams ?? 0} streams`],
      ["Reason", vm.reason?.message],
    ]));
  }
  parts.push(...(status.status === "fulfilled" ? ofStatus(status.value) : [element("p", status.reason.message, "quiet")]));
  $("facts").replaceChildren(...parts);
}

function close() {
  chosen = null;
  detailOf += 1;
  $("detail").hidden = true;
  show();
}

// Shows the VM in the address's fragment: /#web-1.
function go() {
  const name = decodeURIComponent(location.hash.slice(1));
  if (name) choose(name);
  else close();
}

// Refreshes after events. Without events, the timer refreshes.
function listen() {
  let soon;
  const events = new EventSource("events");
  const look = () => {
    clearTimeout(soon);
    soon = setTimeout(refresh, SETTLE_MS);
  };
  for (const type of ["vm.found", "vm.gone", "vm.state", "vm.replaced", "vm.rebooted", "agent.restarted", "reset"]) {
    events.addEventListener(type, look);
  }
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) events.close();
  });
}

$("filter").addEventListener("input", show);
$("filter").addEventListener("submit", (event) => event.preventDefault());
const leave = () => { location.hash = ""; };
$("close").addEventListener("click", leave);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); });
addEventListener("hashchange", go);
setInterval(() => { if (!document.hidden) refresh(); }, EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
ask("version").then((daemon) => { $("daemon").textContent = `${daemon.name} ${daemon.version}`; }).catch(() => {});
ask("whoami").then((caller) => {
  const operates = caller.scopes.includes("operate");
  $("caller").textContent = operates ? "read and operate" : "read only";
  $("caller").title = operates ? "" : "To operate, use minionsctl or curl --unix-socket on the host, or send the bearer token.";
}).catch(() => {});
refresh();
go();
listen();
