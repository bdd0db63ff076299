// dialer.h - sockets to configured targets, for workers. Part of: netd (monitor).
// A worker names an entry and an attempt; the answer is a socket that is connecting to that address of the entry, or a
// failure. Names are resolved by a throw-away process (netd-resolver) and kept for a minute. Nothing else than
// configured targets is ever dialled.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <kj/async.h>
#include <kj/io.h>

#include "common/config.h"
#include "common/event_loop.h"
#include "netd/numeric_address.h"
#include "netd/worker_process.h"

namespace sallyport::netd {

class Dialer {
 public:
  Dialer(EventLoop& loop, const Program& resolver);
  ~Dialer();

  // The targets by entry id, all at once: those that are not named are forgotten.
  void setTargets(std::map<uint32_t, Address> targets);
  // Answers `worker` with Dialed or DialFailed, now or later. The worker is asked for by `find`, as it may be gone by
  // then.
  void dial(uint32_t entryId, uint64_t attempt, unsigned worker, uint64_t request);
  std::function<WorkerProcess*(unsigned)> find;
  // A dial of an entry came to this: errno, or 0 for a connection. A worker's word, which problem() repeats and nothing
  // else relies on.
  void ended(uint32_t entryId, int error);
  // Empty, or why the target doesn't work.
  std::string problem(uint32_t entryId) const;
  // A child of ours ended. False if it isn't a resolver.
  bool childExited(pid_t pid);

 private:
  struct Request {
    uint64_t attempt;
    unsigned worker;
    uint64_t request;
  };
  struct Target {
    Address address;
    std::vector<NumericAddress> numeric;
    uint64_t resolvedAtMs = 0;  // 0: never, or numeric from the start
    bool isName = false;
    bool unresolved = false;  // so the last resolution said; no word of a worker changes it
    std::string problem;
    std::vector<Request> waiting;
  };
  class Resolution;

  void answer(Target& target, const Request& request);
  void resolve(uint32_t entryId, Target& target);
  void resolved(uint32_t entryId, const std::string& lines);

  EventLoop& loop_;
  const Program& resolver_;
  std::map<uint32_t, Target> targets_;
  std::map<uint32_t, std::unique_ptr<Resolution>> resolutions_;
  std::shared_ptr<bool> alive_;
};

}  // namespace sallyport::netd
