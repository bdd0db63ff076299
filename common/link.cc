// link.cc - see link.h. The header layout is Cap'n Proto's stream framing: le32 segments-1, then a le32 word count for
// each segment, padded to 8 bytes, then the segments.
#include "common/link.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <kj/debug.h>

#include "common/frame.h"
#include "common/secret_bytes.h"

namespace sallyport {

namespace {

constexpr size_t WORD = sizeof(capnp::word);
constexpr size_t READ_CHUNK = 16 * 1024;
constexpr size_t LEAST_BYTES = 512;        // of memory taken for a direction at a time
constexpr size_t QUESTION_BYTES = 3072;    // what the RPC system keeps of a call without a Finish, at most
constexpr size_t KEEP_BYTES = 0;           // of an idle link, per direction
constexpr uint32_t PARKED = EPOLLET;       // as what a link waits for: not watched; no link is edge-triggered
constexpr size_t LARGE_BYTES = 16 * 1024;  // from here on a message is sent from where it lies

uint32_t le32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return le32toh(value);
}

}  // namespace

// A message whose head has been judged: aligned, filled as it comes, wiped when it goes. Text and vouches pass through
// here.
class Link::Incoming final : public capnp::MessageReader {
 public:
  Incoming(ByteSpan head, const FrameHeader& header, capnp::ReaderOptions limits)
      : capnp::MessageReader(limits),
        size_(header.messageBytes - header.headerBytes),
        words_(std::make_unique_for_overwrite<uint64_t[]>(size_ / WORD)),
        segments_(header.segments) {
    size_t offset = 0;
    for (unsigned i = 0; i < header.segments; ++i) {
      const size_t words = le32(head.data() + 4 + 4 * size_t{i});
      segments_[i] = {reinterpret_cast<const capnp::word*>(words_.get()) + offset, words};
      offset += words;
    }
  }
  ~Incoming() noexcept(false) { wipe(content().first(filled_)); }

  size_t size() const { return size_; }
  MutableByteSpan missing() { return content().subspan(filled_); }
  void filled(size_t bytes) { filled_ += bytes; }
  bool whole() const { return filled_ == size_; }

  kj::ArrayPtr<const capnp::word> getSegment(uint id) override {
    if (id >= segments_.size()) return nullptr;
    return kj::arrayPtr(segments_[id].data, segments_[id].size);
  }

 private:
  struct Segment {
    const capnp::word* data = nullptr;
    size_t size = 0;
  };
  MutableByteSpan content() { return std::as_writable_bytes(std::span(words_.get(), size_ / WORD)); }

  size_t size_;
  size_t filled_ = 0;
  std::unique_ptr<uint64_t[]> words_;
  std::vector<Segment> segments_;
};

std::string_view name(CutOff reason) {
  switch (reason) {
    case CutOff::None: return "none";
    case CutOff::BadHeader: return "bad_header";
    case CutOff::TooBig: return "too_big";
    case CutOff::BadMessage: return "bad_message";
    case CutOff::TooManyCalls: return "too_many_calls";
    case CutOff::CapabilityInParams: return "capability_in_params";
    case CutOff::SlowReader: return "slow_reader";
    case CutOff::OverBudget: return "over_budget";
    case CutOff::Crowded: return "crowded";
  }
  return "unknown";
}

Link::Link(EventLoop& loop, int fd, LinkSide side, LinkLimits limits)
    : loop_(loop),
      fd_(fd),
      side_(side),
      limits_(limits),
      heardMs_(loop.nowMs()),
      in_(KEEP_BYTES, LEAST_BYTES),
      out_(KEEP_BYTES, LEAST_BYTES),
      alive_(std::make_shared<bool>(true)) {
  loop_.add(fd_, interest_ = EPOLLIN, *this);
}

Link::~Link() noexcept(false) {
  *alive_ = false;
  if (budget_ != nullptr) budget_->remove(*this);
  loop_.remove(fd_, *this);
  close(fd_);
}

void Link::countFor(LinkBudget& budget, uid_t owner, std::shared_ptr<const LinkCharge> charge) {
  CHECK(budget_ == nullptr);
  budget_ = &budget;
  charge_ = std::move(charge);
  budget.add(*this, owner);
  account();
}

// After every change of what is held.
void Link::account() {
  if (budget_ == nullptr) return;
  budget_->holds(*this, in_.capacity() + out_.capacity() + (message_.get() == nullptr ? 0 : message_->size()) +
                            questions_.size() * QUESTION_BYTES + (charge_ ? charge_->bytes : 0));
}

void Link::onEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0 || eof_ || broken_) return;
  if (message_.get() == nullptr || !message_->whole()) return readAvailable();
  // A message waits for its turn, and nothing is read meanwhile. A hang-up would be reported until then.
  if ((events & (EPOLLHUP | EPOLLERR)) == 0) return;
  loop_.remove(fd_, *this);
  interest_ = PARKED;
}

void Link::readAvailable() {
  for (;;) {
    const bool filling = message_.get() != nullptr;
    // The buffer is all links': one takes memory for what has come, not for what may come.
    static thread_local std::array<std::byte, READ_CHUNK / 2> chunk;
    const MutableByteSpan room = filling ? message_->missing() : MutableByteSpan(chunk);
    const ssize_t got = ::read(fd_, room.data(), room.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
    heardMs_ = loop_.nowMs();
    if (got <= 0) {
      eof_ = true;
    } else if (filling) {
      message_->filled(static_cast<size_t>(got));
    } else {
      const MutableByteSpan came = room.first(static_cast<size_t>(got));
      in_.append(came);
      wipe(came);
    }
    deliver();
    // What is missing of a large message follows its head at once, straight to where it will be read.
    if (filling || message_.get() == nullptr || message_->whole() || eof_) break;
  }
  updateInterest();
}

void Link::deliver() {
  KJ_IF_MAYBE (fulfiller, reading_) {
    if (!broken_ && isHeldBack()) return;
    if (!broken_ && message_.get() == nullptr && !beginMessage()) return;
    if (!broken_ && message_.get() != nullptr && message_->whole()) {
      if (budget_ != nullptr && !myTurn_ && !budget_->takeTurn(*this)) return;
      myTurn_ = false;
      kj::Own<capnp::MessageReader> message = kj::mv(message_);
      if (!screen(*message)) return;
      account();
      auto done = kj::mv(*fulfiller);
      reading_ = nullptr;
      done->fulfill(capnp::MessageReaderAndFds{kj::mv(message), nullptr});
      return;
    }
    if (eof_ || broken_) finishRead();
  }
}

// Back-pressure: who doesn't read its answers gets no more calls through. A client always reads: what comes are
// answers, which ask for nothing, and a server that waits for us to read them doesn't take the calls that we have
// queued.
bool Link::isHeldBack() const { return side_ == LinkSide::Server && out_.size() > limits_.maxQueuedBytes; }

void Link::yourTurn() {
  myTurn_ = true;
  deliver();
  myTurn_ = false;
  updateInterest();
}

// Judges the head of the next message if it is there, and takes what is there of the content. False: the link failed.
bool Link::beginMessage() {
  const FrameHeader header = parseFrameHeader(in_.bytes(), limits_.maxMessageBytes, limits_.maxSegments);
  if (header.state == FrameHeader::State::NeedMore) return true;
  if (header.state != FrameHeader::State::Complete)
    return fail(header.state == FrameHeader::State::Bad ? CutOff::BadHeader : CutOff::TooBig), false;
  capnp::ReaderOptions options;
  options.nestingLimit = 24;
  options.traversalLimitInWords = 4 * limits_.maxMessageBytes / WORD + 1024;
  message_ = kj::heap<Incoming>(in_.bytes(), header, options);
  const ByteSpan content = in_.bytes().subspan(header.headerBytes);
  const size_t here = std::min(content.size(), message_->missing().size());
  std::copy_n(content.begin(), here, message_->missing().begin());
  message_->filled(here);
  in_.consume(header.headerBytes + here);
  return true;
}

// The link is at its end: the RPC system hears "no more messages".
void Link::finishRead() {
  KJ_IF_MAYBE (fulfiller, reading_) {
    auto done = kj::mv(*fulfiller);
    reading_ = nullptr;
    done->fulfill(nullptr);
  }
}

// Only what a client of ours may send passes: bootstrap, call, finish, release, abort; answers to nothing (we never
// call a client); parameters without capabilities; and no more open questions than the limit.
bool Link::screen(capnp::MessageReader& message) {
  if (side_ == LinkSide::Client) return true;
  try {
    auto root = message.getRoot<capnp::rpc::Message>();
    switch (root.which()) {
      case capnp::rpc::Message::BOOTSTRAP: questions_.insert(root.getBootstrap().getQuestionId()); break;
      case capnp::rpc::Message::CALL: {
        auto call = root.getCall();
        if (call.getParams().getCapTable().size() != 0) return fail(CutOff::CapabilityInParams), false;
        if (!call.getSendResultsTo().isCaller()) return fail(CutOff::BadMessage), false;
        questions_.insert(call.getQuestionId());
        break;
      }
      case capnp::rpc::Message::FINISH: questions_.erase(root.getFinish().getQuestionId()); break;
      case capnp::rpc::Message::RELEASE:
      case capnp::rpc::Message::ABORT:
      case capnp::rpc::Message::UNIMPLEMENTED: break;
      case capnp::rpc::Message::RETURN:
      case capnp::rpc::Message::RESOLVE:
      case capnp::rpc::Message::DISEMBARGO:
      case capnp::rpc::Message::OBSOLETE_SAVE:
      case capnp::rpc::Message::OBSOLETE_DELETE:
      case capnp::rpc::Message::PROVIDE:
      case capnp::rpc::Message::ACCEPT:
      case capnp::rpc::Message::JOIN:
      default: return fail(CutOff::BadMessage), false;
    }
  } catch (const kj::Exception&) { return fail(CutOff::BadMessage), false; }
  if (questions_.size() > limits_.maxOpenQuestions) return fail(CutOff::TooManyCalls), false;
  return true;
}

void Link::fail(CutOff reason) {
  if (cutOff_ == CutOff::None) cutOff_ = reason;
  broken_ = true;
  ::shutdown(fd_, SHUT_RDWR);
  message_ = nullptr;
  in_.clear();
  out_.clear();
  updateInterest();
  finishRead();
}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> Link::tryReadMessage(kj::ArrayPtr<kj::AutoCloseFd>,
                                                                        capnp::ReaderOptions,
                                                                        kj::ArrayPtr<capnp::word>) {
  auto paf = kj::newPromiseAndFulfiller<kj::Maybe<capnp::MessageReaderAndFds>>();
  reading_ = kj::mv(paf.fulfiller);
  deliver();
  updateInterest();  // there may be room again, and nothing to answer that would tell
  return kj::mv(paf.promise);
}

// Queues a message, but sends a large one from where it lies as far as the socket takes it.
void Link::append(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  const size_t headBytes = (4 + 4 * segments.size() + WORD - 1) / WORD * WORD;
  const MutableByteSpan head = out_.room(headBytes).first(headBytes);
  std::memset(head.data(), 0, head.size());
  const uint32_t last = htole32(static_cast<uint32_t>(segments.size() - 1));
  std::memcpy(head.data(), &last, 4);
  size_t bytes = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    const uint32_t words = htole32(static_cast<uint32_t>(segments[i].size()));
    std::memcpy(head.data() + 4 + 4 * i, &words, 4);
    bytes += segments[i].size() * WORD;
  }
  out_.added(headBytes);
  const bool large = bytes >= LARGE_BYTES;
  if (large) out_.consume(sendSome(out_.bytes()));
  for (auto& segment : segments) {
    ByteSpan content = std::as_bytes(std::span(segment.begin(), segment.size()));
    if (large && out_.empty()) content = content.subspan(sendSome(content));
    out_.append(content);
  }
}

// How much the socket takes now; a failure is found by flush().
size_t Link::sendSome(ByteSpan bytes) {
  const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  return sent < 0 ? 0 : static_cast<size_t>(sent);
}

// How much may be queued for a peer that has called a lot before it reads: beyond it nothing will ever be read.
static size_t queueCeiling(const LinkLimits& limits) { return 8 * (limits.maxQueuedBytes + limits.maxMessageBytes); }

kj::Promise<void> Link::writeMessage(kj::ArrayPtr<const int>,
                                     kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  if (broken_ || ended_) return kj::READY_NOW;  // the end was or will be told by tryReadMessage
  append(segments);
  account();
  if (side_ == LinkSide::Server && out_.size() > queueCeiling(limits_)) {
    // Not inside the RPC system's own call.
    loop_.defer([this, alive = alive_] {
      if (*alive) fail(CutOff::SlowReader);
    });
  }
  // All messages of a turn leave in one write.
  if (!flushScheduled_) {
    flushScheduled_ = true;
    loop_.defer([this, alive = alive_] {
      if (!*alive) return;
      flushScheduled_ = false;
      flush();
    });
  }
  return kj::READY_NOW;
}

kj::Promise<void> Link::writeMessages(kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) {
  for (auto& message : messages) static_cast<void>(writeMessage(nullptr, message));
  return kj::READY_NOW;
}

void Link::flush() {
  while (!out_.empty()) {
    const ssize_t sent = ::send(fd_, out_.bytes().data(), out_.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) break;
      broken_ = true;
      eof_ = true;
      out_.clear();
      finishRead();
      break;
    }
    out_.consume(static_cast<size_t>(sent));
    stallTimer_ = nullptr;
  }
  if (out_.empty()) {
    stallTimer_ = nullptr;
    if (ended_ && !broken_) ::shutdown(fd_, SHUT_WR);
  } else if (stallTimer_ == nullptr) {
    stallTimer_ = loop_.timer()
                      .afterDelay(limits_.stallTimeoutMs * kj::MILLISECONDS)
                      .then([this] { fail(CutOff::SlowReader); })
                      .eagerlyEvaluate(nullptr);
  }
  deliver();  // back-pressure may have ended
  updateInterest();
}

void Link::updateInterest() {
  account();
  uint32_t wanted = 0;
  const bool undelivered = message_.get() != nullptr ? message_->whole() : in_.size() >= READ_CHUNK;
  if (!eof_ && !broken_ && !isHeldBack() && !undelivered) wanted |= EPOLLIN;
  // Not for what this turn's flush will send: two system calls an answer for nothing.
  if (!broken_ && !out_.empty() && !flushScheduled_) wanted |= EPOLLOUT;
  if (interest_ == PARKED) {
    if (wanted == 0) return;
    loop_.add(fd_, wanted, *this);
    interest_ = wanted;
    return;
  }
  if (wanted == interest_) return;
  if (wanted == 0 && (eof_ || broken_)) {
    loop_.remove(fd_, *this);  // a hang-up can't be masked: it would be reported for ever
  } else if (interest_ == 0 && (eof_ || broken_)) {
    loop_.add(fd_, wanted, *this);
  } else {
    loop_.modify(fd_, wanted, *this);
  }
  interest_ = wanted;
}

kj::Promise<void> Link::end() {
  // The client is still there: the RPC system gave up on what it sent.
  if (side_ == LinkSide::Server && !eof_ && !broken_ && cutOff_ == CutOff::None) cutOff_ = CutOff::BadMessage;
  ended_ = true;
  flush();
  return kj::READY_NOW;
}

}  // namespace sallyport
