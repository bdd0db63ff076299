// sandbox_report.h - a sandbox report on its way from a worker to the monitor. Part of: netd (both sides).
// Text, one "name\tstate\tdetail\n" a layer, the verdict first: the monitor reads it with bounds and shows it, nothing
// more.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sandbox/sandbox.h"

namespace sallyport::netd {

struct ReportedLayer {
  std::string name;
  std::string state;
  std::string detail;
};
struct ReportedSandbox {
  std::string verdict;
  std::vector<ReportedLayer> layers;
};

std::string encodeReport(const sandbox::Report& report);
// Never fails: what doesn't parse is left out, what is too long is cut.
ReportedSandbox decodeReport(std::string_view text);

}  // namespace sallyport::netd
