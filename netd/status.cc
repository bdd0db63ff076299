// status.cc - see status.h.
#include "netd/status.h"

#include <capnp/serialize.h>

#include "common/capnp_bytes.h"
#include "netd/memory_file.h"
#include "netd/worker.h"
#include "proto/netd_control.capnp.h"

namespace sallyport::netd {

namespace {

uint64_t sum(const std::vector<const Stats*>& pages, auto key) {
  uint64_t total = 0;
  for (const Stats* page : pages) total += page->get(key);
  return total;
}

void writeProcess(proto::MonitorProcess::Reader from, uint64_t nowSeconds, proto::ProcessStatus::Builder to) {
  to.setPid(from.getPid());
  to.setUptimeSeconds(nowSeconds - std::min(nowSeconds, from.getStartedAt()));
  to.setRestarts(from.getRestarts());
  to.setSandbox(from.getSandbox());
  to.setSandboxVerdict(from.getSandboxVerdict());
}

template <typename List>
void writeCounters(List list, const std::vector<const Stats*>& pages) {
  for (uint i = 0; i < COUNTER_COUNT; ++i) {
    list[i].setName(std::string(COUNTERS[i].name));
    list[i].setValue(sum(pages, static_cast<Counter>(i)));
  }
}

void writeEntryCounts(uint32_t id, const std::vector<const Stats*>& pages, uint64_t nowMs,
                      proto::EntryStatus::Builder to) {
  const auto total = [&](EntryCounter counter) {
    uint64_t result = 0;
    for (const Stats* page : pages) result += page->get(id, counter);
    return result;
  };
  to.setAccepted(total(EntryCounter::Accepted));
  to.setHandshakes(total(EntryCounter::Handshakes));
  to.setDrops(total(EntryCounter::Drops));
  std::optional<RefusedPeer> last;
  for (const Stats* page : pages) {
    const auto refused = page->refused(id);
    if (!refused || refused->atMs > nowMs) continue;  // a worker that was taken over may write any time
    if (!last || refused->atMs > last->atMs) last = refused;
  }
  if (!last) return;
  to.setRefusedKey(toData(last->key.span()));
  to.setRefusedSecondsAgo((nowMs - last->atMs) / 1000);
}

}  // namespace

void writeStatus(Worker& worker, ControlChannel::Received& received, proto::NetStatus::Builder status) {
  KJ_REQUIRE(!received.fds.empty());
  const auto bytes = readMemoryFile(received.fds[0]);
  std::vector<capnp::word> words(bytes.size() / sizeof(capnp::word));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(capnp::word));
  capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data(), words.size()));
  const auto report = reader.getRoot<proto::StatusReport>();
  const uint64_t nowSeconds = worker.loop().nowMs() / 1000;
  const auto& pages = worker.allStats();

  status.setVersion(SALLYPORT_VERSION);
  writeProcess(report.getMonitor(), nowSeconds, status.initMonitor());
  const auto processes = report.getWorkers();
  auto workers = status.initWorkers(processes.size());
  for (uint i = 0; i < processes.size(); ++i) {
    writeProcess(processes[i], nowSeconds, workers[i]);
    if (i < pages.size()) writeCounters(workers[i].initCounters(COUNTER_COUNT), {pages[i]});
  }
  const auto reported = report.getEntries();
  auto entries = status.initEntries(reported.size());
  for (uint i = 0; i < reported.size(); ++i) {
    entries[i].setName(reported[i].getName());
    entries[i].setDirection(reported[i].getDirection());
    entries[i].setAddress(reported[i].getAddress());
    entries[i].setProblem(reported[i].getProblem());
    entries[i].setKey(reported[i].getKey());
    entries[i].setProtocol(reported[i].getProtocol());
    writeEntryCounts(reported[i].getId(), pages, worker.loop().nowMs(), entries[i]);
  }
  status.setLimits(report.getLimits());
  writeCounters(status.initCounters(COUNTER_COUNT), pages);
  auto drops = status.initDrops(wire::DROP_REASON_COUNT);
  for (uint i = 0; i < wire::DROP_REASON_COUNT; ++i) {
    const auto reason = static_cast<wire::DropReason>(i);
    drops[i].setName(std::string(wire::name(reason)));
    drops[i].setValue(sum(pages, reason));
  }
  status.setVault(report.getVault());
  status.setDraining(report.getDraining());
}

}  // namespace sallyport::netd
