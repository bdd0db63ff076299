// link.h - a bounded Cap'n Proto message stream over a connected Unix socket. Part of: common (any process).
//
// Debian's libcapnp 0.9.2 writes out of bounds on a message that begins FF FF FF FF, takes messages of 64 MiB, keeps
// any number of unanswered calls and queues any amount of answers. This stream is what stands in front of it: the
// header is checked before anything is allocated, every message is screened (kind, answers owed, capabilities), a peer
// that doesn't read is not read from, and buffers are wiped. A violation ends the link with a CutOff reason; it never
// throws at the other clients.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <vector>

#include <capnp/serialize-async.h>

#include "common/byte_queue.h"
#include "common/event_loop.h"
#include "common/link_budget.h"

namespace sallyport {

// Why an RPC peer was cut off. `None`: it left by itself.
enum class CutOff : uint8_t {
  None,
  BadHeader,
  TooBig,
  BadMessage,
  TooManyCalls,
  CapabilityInParams,
  SlowReader,
  OverBudget,  // all links together hold too much, and this user's the most of it
  Crowded      // all places are taken, most of them by this user, and another one came
};
inline constexpr size_t CUT_OFF_COUNT = 9;
std::string_view name(CutOff reason);  // "bad_header", ...

struct LinkLimits {
  size_t maxMessageBytes = 64 * 1024;
  unsigned maxSegments = 8;
  size_t maxQueuedBytes = 256 * 1024;  // above it, a server reads no more until its client has read
  unsigned maxOpenQuestions = 256;     // calls and bootstraps without a Finish
  uint32_t stallTimeoutMs = 10000;     // a queue that doesn't move for so long ends the link
};

// What a service keeps for the client of a link beside its messages, capabilities for one. Counted with them, from the
// next message on.
struct LinkCharge {
  size_t bytes = 0;
};

enum class LinkSide : uint8_t { Server, Client };  // a server screens its client's calls; a client only sizes

class Link final : public capnp::MessageStream, private EventLoop::Watcher, private LinkBudget::Holder {
 public:
  // Takes over `fd` (a connected, non-blocking SOCK_STREAM socket).
  Link(EventLoop& loop, int fd, LinkSide side, LinkLimits limits);
  ~Link() noexcept(false);

  // What this link holds counts for the budget, which must outlive it; `owner` is the user at the other end. `charge`
  // may be null.
  void countFor(LinkBudget& budget, uid_t owner, std::shared_ptr<const LinkCharge> charge = nullptr);
  CutOff cutOff() const { return cutOff_; }
  void cutOffAs(CutOff reason) { fail(reason); }
  // When something came in last.
  uint64_t heardMs() const override { return heardMs_; }

  // capnp::MessageStream
  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(kj::ArrayPtr<kj::AutoCloseFd> fdSpace,
                                                                    capnp::ReaderOptions options,
                                                                    kj::ArrayPtr<capnp::word> scratch) override;
  kj::Promise<void> writeMessage(kj::ArrayPtr<const int> fds,
                                 kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override;
  kj::Maybe<int> getSendBufferSize() override { return nullptr; }
  kj::Promise<void> end() override;

 private:
  using ReadFulfiller = kj::PromiseFulfiller<kj::Maybe<capnp::MessageReaderAndFds>>;

  void onEvents(uint32_t events) override;
  void overBudget() override { fail(CutOff::OverBudget); }
  void yourTurn() override;
  class Incoming;

  void readAvailable();
  void deliver();
  bool isHeldBack() const;
  bool beginMessage();
  bool screen(capnp::MessageReader& message);
  void append(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments);
  size_t sendSome(ByteSpan bytes);
  void flush();
  void updateInterest();
  void fail(CutOff reason);
  void finishRead();
  void account();

  EventLoop& loop_;
  int fd_;
  LinkSide side_;
  LinkLimits limits_;
  CutOff cutOff_ = CutOff::None;
  bool eof_ = false;
  bool broken_ = false;
  bool ended_ = false;
  bool flushScheduled_ = false;
  bool myTurn_ = false;
  uint32_t interest_ = 0;
  uint64_t heardMs_;
  LinkBudget* budget_ = nullptr;
  std::shared_ptr<const LinkCharge> charge_;
  ByteQueue in_;               // the beginning of a message, or what nobody has asked for yet
  kj::Own<Incoming> message_;  // its head is judged, and it is being filled
  ByteQueue out_;
  std::unordered_set<uint32_t> questions_;
  kj::Maybe<kj::Own<ReadFulfiller>> reading_;
  kj::Maybe<kj::Promise<void>> stallTimer_;
  std::shared_ptr<bool> alive_;
};

}  // namespace sallyport
