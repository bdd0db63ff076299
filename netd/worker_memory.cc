// worker_memory.cc - see worker.h: who goes when the buffers of this worker are used up. Part of: netd-worker (edge).
// Never here: one that ends for what others hold, as long as they can.
#include <algorithm>

#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
// A connection that waits this long for its slow reader may be dropped to make room for the others.
constexpr uint64_t MIN_WAIT_MS = 1000;
// How long it is taken for true who holds the most.
constexpr uint64_t VERDICT_MS = 50;
constexpr size_t FIRST_WORD_BYTES = 64 * 1024;
}  // namespace

void Worker::setWaiting(Connection& connection, bool waiting) {
  if (!waiting) return connection.waitingHook.unlink();
  if (!connection.waitingHook.linked()) {
    connection.waitingSinceMs = loop_.nowMs();
    waiting_.pushBack(connection);
  }
  relieve();
}

Worker::Holder Worker::holderOf(const Connection& connection) { return {connection.entry().id, connection.peer()}; }

// Of all that wait, with all that each of them holds.
Worker::Holder Worker::heaviest() const {
  std::map<Holder, size_t> held;
  for (Connection* c = waiting_.front(); c != nullptr; c = waiting_.next(*c)) held[holderOf(*c)] += c->heldBytes();
  return std::ranges::max_element(held, {}, [](const auto& each) { return each.second; })->first;
}

// The connection that has waited longest of the host that holds most: one that holds little is not ended for what
// others hold, however long it pauses. To look at all of them for each that is ended would be work for an attacker to
// give, so a verdict stands for a moment.
Connection* Worker::whoPays() {
  if (waiting_.empty()) return nullptr;
  const auto longest = [this] {
    Connection* c = waiting_.front();
    while (c != nullptr && holderOf(*c) != payer_) c = waiting_.next(*c);
    return c;
  };
  if (payerSinceMs_ != 0 && loop_.nowMs() - payerSinceMs_ < VERDICT_MS) {
    if (Connection* found = longest()) return found;
  }
  payer_ = heaviest();
  payerSinceMs_ = loop_.nowMs();
  return longest();
}

// Who pays for the memory doesn't before a moment has passed; unless memory is really short.
void Worker::relieve() {
  while (budget_->exceeded()) {
    Connection* longest = whoPays();
    if (longest == nullptr) return;
    const uint64_t waitedMs = loop_.nowMs() - longest->waitingSinceMs;
    if (waitedMs < MIN_WAIT_MS && !budget_->farExceeded()) {
      if (budget_->reserveExceeded()) relieveIn(MIN_WAIT_MS - waitedMs);
      return;
    }
    const size_t before = budget_->used();
    longest->fail(DropReason::MemoryLimit);
    // What a channel has received goes a little later: nobody else pays meanwhile.
    if (budget_->used() >= before) return relieveIn(1);
  }
}

// Those who hold the memory may be silent from here on, and nothing else would tell of them. While there is a reserve
// it keeps nobody out, and who only pauses stays.
void Worker::relieveIn(uint64_t delayMs) {
  if (relieveArmed_) return;
  relieveArmed_ = true;
  relieving_ = loop_.timer()
                   .afterDelay(delayMs * kj::MILLISECONDS)
                   .then([this] {
                     soon([this] {
                       relieveArmed_ = false;
                       relieve();
                     });
                   })
                   .eagerlyEvaluate(nullptr);
}

bool Worker::mayHold(size_t bytes) const {
  return bytes > FIRST_WORD_BYTES ? !budget_->exceeded() : !budget_->reserveExceeded();
}

}  // namespace sallyport::netd
