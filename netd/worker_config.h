// worker_config.h - the configuration as a worker gets it: its share, with public keys only. Part of: netd (monitor).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/bytes.h"
#include "common/config.h"

namespace sallyport::netd {

// Numbers for entries, the same as long as a name stays: (is a listen entry, name) -> id.
class EntryIds {
 public:
  uint32_t of(bool isListen, const std::string& name);

 private:
  std::map<std::pair<bool, std::string>, uint32_t> ids_;
};

// A WorkerConfig message (proto/netd_control.capnp) for each of `workers` workers: limits are divided among them.
std::vector<std::byte> encodeWorkerConfig(const Config& config, EntryIds& ids, uint64_t generation, unsigned workers);

}  // namespace sallyport::netd
