// calls.h - how many calls of a kind a vault answers, and how long each takes. Part of: tests/bench.
#pragma once

#include <functional>

#include <kj/debug.h>

#include "common/event_loop.h"
#include "tests/bench/measure.h"

namespace sallyport::bench {

inline constexpr uint MAX_ITEMS = 64;

struct Rate {
  double perSecond = 0;
  double p50 = 0;
  double p99 = 0;
  double cpuMicros = 0;  // of the vault, per item
};

struct Direct {
  double perSecond = 0;
  double cpuMicros = 0;
};

// How often `work` can be done in a while by this process alone: what a vault is held against.
template <typename Work>
Direct direct(double secs, Work&& work) {
  size_t done = 0;
  const double began = now();
  const double cpuBefore = ownCpuSeconds();
  while (now() < began + secs) work(done++);
  const auto count = static_cast<double>(done);
  return {count / (now() - began), (ownCpuSeconds() - cpuBefore) * 1e6 / count};
}

// Makes calls of `items` items, `width` at a time, for a while. `call` starts one and checks its answer. `pids`: of the
// vault.
template <typename Call>
Rate measure(EventLoop& loop, double secs, const std::vector<int>& pids, size_t width, uint items, Call&& call) {
  std::vector<double> micros;
  size_t open = 0;
  uint64_t answered = 0;
  const double began = now();
  const double end = began + secs;
  const double cpuBefore = cpuSeconds(pids);
  std::function<void()> start = [&] {
    ++open;
    const double asked = now();
    call(items)
        .then([&, asked] {
          --open;
          ++answered;
          micros.push_back((now() - asked) * 1e6);
          if (now() < end) start();
        })
        .detach([](kj::Exception&& e) {
          std::fprintf(stderr, "vault: error: %s\n", e.getDescription().cStr());
          std::_Exit(1);
        });
  };
  for (size_t i = 0; i < width; ++i) start();
  while (open > 0) loop.turn(20);
  const double count = static_cast<double>(answered) * items;
  Rate rate{count / (now() - began), 0, 0, (cpuSeconds(pids) - cpuBefore) * 1e6 / count};
  rate.p50 = percentile(micros, 0.5);
  rate.p99 = percentile(micros, 0.99);
  return rate;
}

template <typename Response>
void requireAll(Response& response, uint items, auto&& isGood) {
  auto outcomes = response.getOutcomes();
  KJ_REQUIRE(outcomes.size() == items);
  for (auto outcome : outcomes) KJ_REQUIRE(isGood(outcome), "refused", outcome.getRefused());
}

}  // namespace sallyport::bench
