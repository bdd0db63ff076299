// board.cc - see board.h. Part of: hsmd.
#include "hsmd/board.h"

#include <algorithm>

namespace sallyport::hsmd {

namespace {

template <size_t N>
std::string textOf(const std::array<char, N>& field) {
  return {field.begin(), std::find(field.begin(), field.end(), '\0')};
}

std::string nameOf(const TrialEntry& entry) { return textOf(entry.name); }

TrialEntry* entryOf(Board& board, std::string_view name) {
  for (size_t i = 0; i < board.size(); ++i) {
    if (nameOf(board.entries[i]) == name) return &board.entries[i];
  }
  return nullptr;
}

}  // namespace

bool Board::begin(std::string_view name, Pace pace) {
  CHECK(name.size() <= std::tuple_size_v<decltype(TrialEntry::name)>);
  TrialEntry* entry = entryOf(*this, name);
  if (entry == nullptr) {
    if (count >= MAX_ENTRIES) return false;
    entry = &entries[count];
    *entry = {};
    std::ranges::copy(name, entry->name.begin());
    ++count;
  } else if (static_cast<hsm::Trial>(entry->trial) != hsm::Trial::Untried) {
    return false;
  }
  entry->running = static_cast<uint32_t>(pace) + 1;
  ++steps;
  return true;
}

void Board::end(std::string_view name, hsm::Trial outcome, uint32_t ckr, uint32_t microseconds) {
  TrialEntry* entry = entryOf(*this, name);
  if (entry == nullptr) return;
  entry->trial = static_cast<uint32_t>(outcome);
  entry->ckr = ckr;
  entry->microseconds = microseconds;
  entry->call = outcome == hsm::Trial::Works ? CallName{} : lastCall;
  entry->running = 0;
  ++steps;
}

bool Board::abandon(hsm::Trial outcome) {
  bool any = false;
  for (size_t i = 0; i < size(); ++i) {
    if (entries[i].running == 0) continue;
    entries[i].running = 0;
    entries[i].trial = static_cast<uint32_t>(outcome);
    entries[i].call = lastCall;
    any = true;
  }
  return any;
}

std::string Board::running() const {
  for (size_t i = 0; i < size(); ++i) {
    if (entries[i].running != 0) return nameOf(entries[i]);
  }
  return "";
}

bool Board::mayBeSlow() const {
  if (hasHung("")) return false;
  for (size_t i = 0; i < size(); ++i) {
    if (entries[i].running == static_cast<uint32_t>(Pace::Slow) + 1) return true;
  }
  return false;
}

bool Board::hasHung(std::string_view prefix) const {
  for (size_t i = 0; i < size(); ++i) {
    if (static_cast<hsm::Trial>(entries[i].trial) == hsm::Trial::TimedOut && nameOf(entries[i]).starts_with(prefix))
      return true;
  }
  return false;
}

void Board::retryTimedOut() {
  for (size_t i = 0; i < size(); ++i) {
    if (static_cast<hsm::Trial>(entries[i].trial) == hsm::Trial::TimedOut)
      entries[i].trial = static_cast<uint32_t>(hsm::Trial::Untried);
  }
}

Board::Seen Board::at(size_t index) const {
  CHECK(index < MAX_ENTRIES);
  const TrialEntry entry = entries[index];
  const bool known = entry.trial < hsm::TRIAL_COUNT;
  return {.name = nameOf(entry),
          .trial = known ? static_cast<hsm::Trial>(entry.trial) : hsm::Trial::Crashed,
          .ckr = entry.ckr,
          .microseconds = entry.microseconds,
          .call = textOf(entry.call)};
}

std::optional<Board::Seen> Board::find(std::string_view name) const {
  for (size_t i = 0; i < size(); ++i) {
    if (nameOf(entries[i]) == name) return at(i);
  }
  return std::nullopt;
}

void Board::setCall(std::string_view function) {
  CHECK(function.size() <= lastCall.size());
  std::ranges::fill(lastCall, '\0');
  std::ranges::copy(function, lastCall.begin());
}

std::string Board::call() const { return textOf(lastCall); }

bool Board::works(std::string_view name) const {
  const auto seen = find(name);
  return seen && seen->trial == hsm::Trial::Works;
}

}  // namespace sallyport::hsmd
