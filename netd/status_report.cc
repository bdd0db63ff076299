// status_report.cc - see status_report.h.
#include "netd/status_report.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include "proto/netd_control.capnp.h"

namespace sallyport::netd {

namespace {

void writeProcess(const MonitorStatus::Process& from, proto::MonitorProcess::Builder to) {
  to.setPid(static_cast<uint32_t>(from.pid));
  to.setStartedAt(from.startedAtSeconds);
  to.setRestarts(from.restarts);
  to.setSandboxVerdict(from.sandbox.verdict);
  auto layers = to.initSandbox(static_cast<uint>(from.sandbox.layers.size()));
  for (uint i = 0; i < layers.size(); ++i) {
    layers[i].setName(from.sandbox.layers[i].name);
    layers[i].setState(from.sandbox.layers[i].state);
    layers[i].setDetail(from.sandbox.layers[i].detail);
  }
}

void writeLimits(const LimitsConfig& limits, unsigned workers, proto::StatusReport::Builder report) {
  const std::vector<std::pair<const char*, uint64_t>> values = {
      {"workers", workers},
      {"half_open", limits.halfOpen},
      {"connections", limits.connections},
      {"half_open_per_source", limits.halfOpenPerSource},
      {"connections_per_source", limits.connectionsPerSource},
      {"handshake_timeout_ms", limits.handshakeTimeoutMs},
      {"dial_timeout_ms", limits.dialTimeoutMs},
      {"idle_timeout_s", limits.idleTimeoutS},
      {"accept_timeout_ms", limits.acceptTimeoutMs},
      {"buffer_mib", limits.bufferMiB},
      {"drain_timeout_ms", limits.drainTimeoutMs},
      {"keepalive_s", limits.keepaliveS},
      {"user_timeout_ms", limits.userTimeoutMs},
  };
  auto list = report.initLimits(static_cast<uint>(values.size()));
  for (uint i = 0; i < list.size(); ++i) {
    list[i].setName(values[i].first);
    list[i].setValue(values[i].second);
  }
}

const char* protocolOf(Protocol protocol, PeerMode mode) {
  if (protocol == Protocol::Curve) return "curve";
  return mode == PeerMode::Base ? "peer base" : "peer hard";
}

}  // namespace

std::vector<std::byte> encodeStatusReport(const MonitorStatus& status) {
  capnp::MallocMessageBuilder message;
  auto report = message.initRoot<proto::StatusReport>();
  writeProcess(status.self, report.initMonitor());
  auto workers = report.initWorkers(static_cast<uint>(status.workers.size()));
  for (uint i = 0; i < workers.size(); ++i) writeProcess(status.workers[i], workers[i]);
  const Config& config = status.config;
  auto entries = report.initEntries(static_cast<uint>(config.listens.size() + config.connects.size()));
  uint next = 0;
  const auto write = [&](bool isListen, const auto& entry) {
    auto to = entries[next++];
    const auto known = status.entry(isListen, entry.name);
    to.setId(known.id);
    to.setName(entry.name);
    to.setDirection(isListen ? "listen" : "connect");
    to.setAddress(toString(entry.address));
    to.setKey(entry.key);
    to.setProtocol(protocolOf(entry.protocol, entry.framing.mode));
    to.setProblem(known.problem);
  };
  for (const ListenEntry& entry : config.listens) write(true, entry);
  for (const ConnectEntry& entry : config.connects) write(false, entry);
  writeLimits(config.limits, status.workerCount, report);
  report.setVault(status.vault);
  report.setDraining(status.draining);
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  const auto* first = reinterpret_cast<const std::byte*>(bytes.begin());
  return {first, first + bytes.size()};
}

}  // namespace sallyport::netd
