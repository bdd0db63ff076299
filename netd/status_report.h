// status_report.h - what the monitor knows, as a StatusReport message (proto/netd_control.capnp). Part of: netd
// (monitor).
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "common/config.h"
#include "netd/sandbox_report.h"

namespace sallyport::netd {

struct MonitorStatus {
  struct Process {
    pid_t pid;
    uint64_t startedAtSeconds;  // monotonic
    uint32_t restarts;
    ReportedSandbox sandbox;
  };
  const Config& config;
  Process self;
  std::vector<Process> workers;
  struct Entry {
    uint32_t id;
    std::string problem;  // empty: none
  };
  std::function<Entry(bool isListen, const std::string& name)> entry;
  unsigned workerCount;
  std::string vault;
  bool draining;
};

std::vector<std::byte> encodeStatusReport(const MonitorStatus& status);

}  // namespace sallyport::netd
