// board.h - what was tried with a module, in memory that outlives those who try. Part of: hsmd (all its processes).
// A probe writes the name of a trial before it begins and its outcome behind it. When it dies in between, the keeper
// marks the trial and starts another probe, which goes on with the next. Workers only do what has worked here. It is
// written by processes that run a module's code, so its readers believe no length and no state.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/bytes.h"
#include "proto/hsm/frames.h"

namespace sallyport::hsmd {

using CallName = std::array<char, 24>;  // "C_DeriveKey"; no NUL at the end if it is that long

struct TrialEntry {
  std::array<char, 48> name;  // no NUL at the end if it is that long
  CallName call;              // what refused, crashed or hung
  uint32_t trial;             // hsm::Trial
  uint32_t running;           // Pace + 1: begun, not ended
  uint32_t ckr;
  uint32_t microseconds;
};

struct Board {
  static constexpr uint32_t MAX_ENTRIES = 250;
  uint32_t count;
  uint32_t steps;     // grows with each begin and end, and each key of a worker's: who hangs is who doesn't step
  CallName lastCall;  // last_call.h
  std::array<TrialEntry, MAX_ENTRIES> entries;

  // How long a trial may take: making an RSA key takes a card a minute.
  enum class Pace : uint32_t { Quick, Slow };

  // For the probe. False: it has an outcome already, or there is no room.
  bool begin(std::string_view name, Pace pace = Pace::Quick);
  void end(std::string_view name, hsm::Trial outcome, uint32_t ckr, uint32_t microseconds);
  // For the keeper, when a probe has ended: what was running becomes `outcome`. True if there was something.
  bool abandon(hsm::Trial outcome);
  // The name of what is running; empty: nothing is.
  std::string running() const;
  // What is running may take its time. Not if something has hung before: then this most likely does so, too.
  bool mayBeSlow() const;
  bool hasHung(std::string_view prefix) const;
  // A new round: what had hung may be tried once more.
  void retryTimedOut();

  struct Seen {
    std::string name;
    hsm::Trial trial = hsm::Trial::Untried;
    uint32_t ckr = 0;
    uint32_t microseconds = 0;
    std::string call;
  };
  size_t size() const { return count < MAX_ENTRIES ? count : MAX_ENTRIES; }
  Seen at(size_t index) const;
  std::optional<Seen> find(std::string_view name) const;
  bool works(std::string_view name) const;

  void setCall(std::string_view function);
  std::string call() const;
};

inline constexpr size_t BOARD_BYTES = 24576;
static_assert(sizeof(Board) <= BOARD_BYTES);

}  // namespace sallyport::hsmd
