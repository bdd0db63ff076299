// metrics.h - netd's counters as text for Prometheus. Part of: netd-worker 0. Nothing secret is in a counter.
#pragma once

#include <string>

namespace sallyport::netd {

class Worker;

std::string metricsPage(Worker& worker);

}  // namespace sallyport::netd
