// measure.h - what the programs of the benchmark share: time, CPU seconds of other processes, percentiles, and one line
// of JSON as the answer. Part of: tests/bench.
#pragma once

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace sallyport::bench {

inline double now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// User and system seconds that these processes have used so far, their threads included.
inline double cpuSeconds(const std::vector<int>& pids) {
  long ticks = 0;
  for (const int pid : pids) {
    FILE* file = std::fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r");
    if (file == nullptr) continue;
    char line[1024];
    if (std::fgets(line, sizeof line, file) != nullptr) {
      long user = 0;
      long system = 0;
      const char* rest = std::strrchr(line, ')');
      if (rest != nullptr &&
          std::sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system) == 2)
        ticks += user + system;
    }
    std::fclose(file);
  }
  return static_cast<double>(ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// Of this process.
inline double ownCpuSeconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// "12,34" as numbers.
inline std::vector<int> parsePids(const char* text) {
  std::vector<int> pids;
  while (*text != 0) {
    char* end = nullptr;
    pids.push_back(static_cast<int>(std::strtol(text, &end, 10)));
    text = *end == ',' ? end + 1 : end + std::strlen(end);
  }
  return pids;
}

// Sorts. `part` of 0.5 is the median.
inline double percentile(std::vector<double>& values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(part * static_cast<double>(values.size())))];
}

inline void report(const std::vector<std::pair<const char*, double>>& figures) {
  std::string line = "{";
  for (const auto& [name, value] : figures) {
    char text[96];
    std::snprintf(text, sizeof text, "%s\"%s\": %.6g", line.size() > 1 ? ", " : "", name, value);
    line += text;
  }
  std::puts((line + "}").c_str());
  std::fflush(stdout);
}

}  // namespace sallyport::bench
