// metrics.cc - see metrics.h.
#include "netd/metrics.h"

#include "netd/channel_service.h"
#include "netd/worker.h"

namespace sallyport::netd {

std::string metricsPage(Worker& worker) {
  std::string text;
  const auto& pages = worker.allStats();
  const auto add = [&text](std::string_view name, std::string_view labels, uint64_t value) {
    text.append("sallyport_net_").append(name).append(labels).append(" ").append(std::to_string(value)).append("\n");
  };
  for (size_t i = 0; i < COUNTER_COUNT; ++i) {
    const std::string name = std::string(COUNTERS[i].name) + (COUNTERS[i].gauge ? "" : "_total");
    text.append("# TYPE sallyport_net_").append(name).append(COUNTERS[i].gauge ? " gauge\n" : " counter\n");
    for (size_t index = 0; index < pages.size(); ++index) {
      add(name, "{worker=\"" + std::to_string(index) + "\"}", pages[index]->get(static_cast<Counter>(i)));
    }
  }
  text.append("# TYPE sallyport_net_drops_total counter\n");
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) {
    const auto reason = static_cast<wire::DropReason>(i);
    uint64_t total = 0;
    for (const Stats* page : pages) total += page->get(reason);
    add("drops_total", "{reason=\"" + std::string(wire::name(reason)) + "\"}", total);
  }
  if (worker.channels() != nullptr) {
    const auto& rpc = worker.channels()->rpcStats();
    text.append("# TYPE sallyport_net_rpc_cut_off_clients_total counter\n");
    for (size_t i = 1; i < CUT_OFF_COUNT; ++i) {
      add("rpc_cut_off_clients_total", "{reason=\"" + std::string(name(static_cast<CutOff>(i))) + "\"}", rpc.cutOff[i]);
    }
  }
  return text;
}

}  // namespace sallyport::netd
