// wire.cc - see wire.h.
#include "clients/cpp/wire.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include <capnp/rpc.capnp.h>
#include <kj/exception.h>

#include "common/secret_bytes.h"

namespace sallyport::client {

namespace {

constexpr uint32_t BOOTSTRAP_QUESTION = 0;  // never finished: App calls go to its promised answer
constexpr size_t WINDOW = 16;               // questions 1 to WINDOW; the vault allows 256
constexpr size_t MAX_ANSWER_BYTES = 1024 * 1024;
constexpr unsigned MAX_ANSWER_SEGMENTS = 64;
constexpr size_t READ_CHUNK = 32 * 1024;
constexpr size_t MESSAGE_OVERHEAD_WORDS = 64;  // the RPC's own structs around the parameters
constexpr auto BACKLOG_PAUSE = std::chrono::milliseconds(5);

// A message under construction; its segments are wiped.
class WipedBuilder final : public capnp::MessageBuilder {
 public:
  explicit WipedBuilder(size_t firstWords) : nextWords_(firstWords) {}
  ~WipedBuilder() noexcept(false) {
    for (auto& segment : segments_) wipe(std::as_writable_bytes(std::span(segment)));
  }

  kj::ArrayPtr<capnp::word> allocateSegment(uint minimumSize) override {
    auto& segment = segments_.emplace_back(std::max<size_t>(minimumSize, nextWords_));
    nextWords_ = segment.size();
    return kj::arrayPtr(reinterpret_cast<capnp::word*>(segment.data()), segment.size());
  }

 private:
  size_t nextWords_;
  std::vector<std::vector<uint64_t>> segments_;
};

int dial(const std::string& path, std::chrono::steady_clock::time_point deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos) {
    throw Error(Code::cantConnect, "'" + path + "': the path of a Unix socket has 1 to 107 characters");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int problem = errno;
  while (fd >= 0) {
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
    problem = errno;
    if (problem == EINTR) continue;
    // A full backlog: the vault lives and is busy.
    if (problem != EAGAIN || std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(BACKLOG_PAUSE);
  }
  if (fd >= 0) ::close(fd);
  throw Error(Code::cantConnect, path + ": " + std::strerror(problem));
}

Code codeOf(capnp::rpc::Exception::Type type) {
  switch (type) {
    case capnp::rpc::Exception::Type::UNIMPLEMENTED: return Code::unsupported;
    case capnp::rpc::Exception::Type::DISCONNECTED: return Code::disconnected;
    case capnp::rpc::Exception::Type::OVERLOADED:
    case capnp::rpc::Exception::Type::FAILED: break;
  }
  return Code::vaultFailed;
}

std::optional<uint32_t> firstCapability(capnp::rpc::Payload::Reader payload) {
  const auto table = payload.getCapTable();
  if (table.size() == 0) return std::nullopt;
  if (table.size() > 1) throw Error(Code::protocolError);
  switch (table[0].which()) {
    case capnp::rpc::CapDescriptor::SENDER_HOSTED: return table[0].getSenderHosted();
    case capnp::rpc::CapDescriptor::SENDER_PROMISE: return table[0].getSenderPromise();
    case capnp::rpc::CapDescriptor::NONE: return std::nullopt;
    default: throw Error(Code::protocolError);
  }
}

}  // namespace

Wire::Wire(const std::string& path, std::chrono::milliseconds timeout)
    : fd_(dial(path, Clock::now() + timeout)), owner_(::getpid()), timeout_(timeout) {
  sendBootstrap();
}

Wire::~Wire() {
  ::close(fd_);
  wipe(in_);
  wipe(out_);
}

void Wire::hangUp() noexcept {
  dead_ = true;
  if (owner_ == ::getpid()) ::shutdown(fd_, SHUT_RDWR);
}

void Wire::die(Code code, const std::string& detail) {
  dead_ = true;
  throw Error(code, detail);
}

bool Wire::alive() {
  if (dead_ || owner_ != ::getpid()) return false;
  pollfd poller{.fd = fd_, .events = POLLIN | POLLRDHUP, .revents = 0};
  if (::poll(&poller, 1, 0) <= 0) return true;
  if ((poller.revents & (POLLHUP | POLLERR | POLLRDHUP)) != 0) dead_ = true;
  return !dead_;
}

void Wire::encode(size_t paramBytes, const std::function<void(capnp::MessageBuilder&)>& build) {
  WipedBuilder message(paramBytes / sizeof(capnp::word) + MESSAGE_OVERHEAD_WORDS);
  build(message);
  appendFrame(out_, message.getSegmentsForOutput());
}

void Wire::sendBootstrap() {
  encode(0, [](capnp::MessageBuilder& message) {
    message.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(BOOTSTRAP_QUESTION);
  });
}

void Wire::sendCall(uint32_t question, const Call& call) {
  encode(call.paramBytes, [&](capnp::MessageBuilder& message) {
    auto out = message.initRoot<capnp::rpc::Message>().initCall();
    out.setQuestionId(question);
    out.setInterfaceId(call.interfaceId);
    out.setMethodId(call.methodId);
    out.getSendResultsTo().setCaller();
    if (call.target) {
      out.initTarget().setImportedCap(*call.target);
    } else {
      out.initTarget().initPromisedAnswer().setQuestionId(BOOTSTRAP_QUESTION);
    }
    call.fill(out.initParams().getContent());
  });
}

// At once, not with the next call: until then the vault keeps the answer, and what was opened is in it.
void Wire::sendFinish(uint32_t question) {
  encode(0, [&](capnp::MessageBuilder& message) {
    auto finish = message.initRoot<capnp::rpc::Message>().initFinish();
    finish.setQuestionId(question);
    finish.setReleaseResultCaps(false);  // what `take` was given, it keeps
  });
}

void Wire::release(uint32_t capability) noexcept {
  if (dead_ || owner_ != ::getpid()) return;
  try {
    encode(0, [&](capnp::MessageBuilder& message) {
      auto release = message.initRoot<capnp::rpc::Message>().initRelease();
      release.setId(capability);
      release.setReferenceCount(1);
    });
    flush();
  } catch (...) { dead_ = true; }
}

void Wire::flush() {
  while (outStart_ < out_.size()) {
    const ssize_t sent = ::send(fd_, out_.data() + outStart_, out_.size() - outStart_, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return;
      die(Code::disconnected);
    }
    outStart_ += static_cast<size_t>(sent);
  }
  wipe(out_);
  out_.clear();
  outStart_ = 0;
}

void Wire::waitUntil(Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) die(Code::timedOut);
    const bool writing = outStart_ < out_.size();
    pollfd poller{.fd = fd_, .events = static_cast<short>(writing ? POLLIN | POLLOUT : POLLIN), .revents = 0};
    const int ready = ::poll(&poller, 1, static_cast<int>(std::min<long long>(left, 60'000)));
    if (ready < 0 && errno != EINTR) die(Code::disconnected);
    if (ready > 0) return;
  }
}

void Wire::receive() {
  if (inStart_ > 0) {
    wipe(MutableByteSpan(in_).first(inStart_));
    std::memmove(in_.data(), in_.data() + inStart_, in_.size() - inStart_);
    wipe(MutableByteSpan(in_).subspan(in_.size() - inStart_));
    in_.resize(in_.size() - inStart_);
    inStart_ = 0;
  }
  const size_t before = in_.size();
  if (in_.capacity() < before + READ_CHUNK) {
    std::vector<std::byte> larger;
    larger.reserve(std::max(in_.capacity() * 2, before + READ_CHUNK));
    larger.assign(in_.begin(), in_.end());
    wipe(in_);
    in_ = std::move(larger);
  }
  in_.resize(before + READ_CHUNK);
  const ssize_t got = ::recv(fd_, in_.data() + before, READ_CHUNK, 0);
  in_.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) die(Code::disconnected);
}

std::unique_ptr<OwnedMessage> Wire::nextMessage() {
  const ByteSpan bytes = ByteSpan(in_).subspan(inStart_);
  const FrameHeader header = parseFrameHeader(bytes, MAX_ANSWER_BYTES, MAX_ANSWER_SEGMENTS);
  switch (header.state) {
    case FrameHeader::State::NeedMore: return nullptr;
    case FrameHeader::State::Bad:
    case FrameHeader::State::TooBig: die(Code::protocolError);
    case FrameHeader::State::Complete: break;
  }
  if (bytes.size() < header.messageBytes) return nullptr;
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 4 * MAX_ANSWER_BYTES / sizeof(capnp::word);
  auto message = std::make_unique<OwnedMessage>(bytes, header, options);
  inStart_ += header.messageBytes;
  return message;
}

void Wire::askAllWithin(std::span<Call> calls, std::chrono::milliseconds wait) {
  std::optional<Error> failure;
  std::array<const Call*, WINDOW + 1> waiting{};  // by question
  size_t sent = 0;
  size_t answered = 0;
  const auto fail = [&](const Error& error) {
    if (!failure) failure = error;
  };
  const auto takeReturn = [&](capnp::rpc::Return::Reader answer) {
    const uint32_t question = answer.getAnswerId();
    if (question == BOOTSTRAP_QUESTION) {
      if (answer.isException()) die(codeOf(answer.getException().getType()));
      return;
    }
    if (question > WINDOW || waiting[question] == nullptr) die(Code::protocolError);
    const Call& call = *std::exchange(waiting[question], nullptr);
    ++answered;
    sendFinish(question);
    if (answer.isResults()) {
      const auto results = answer.getResults();
      call.take(results.getContent(), firstCapability(results));
    } else if (answer.isException()) {
      fail(Error(codeOf(answer.getException().getType())));
    } else {
      die(Code::protocolError);
    }
  };
  const auto takeMessage = [&](OwnedMessage& message) {
    const auto root = message.getRoot<capnp::rpc::Message>();
    switch (root.which()) {
      case capnp::rpc::Message::RETURN: return takeReturn(root.getReturn());
      case capnp::rpc::Message::ABORT: die(codeOf(root.getAbort().getType()), "the vault broke off the connection");
      case capnp::rpc::Message::RESOLVE: return;  // calls to the promise go the right way all the same
      default: die(Code::protocolError);
    }
  };

  try {
    while (answered < calls.size()) {
      for (uint32_t question = 1; question <= WINDOW && sent < calls.size(); ++question) {
        if (waiting[question] != nullptr) continue;
        waiting[question] = &calls[sent];
        sendCall(question, calls[sent++]);
      }
      flush();
      waitUntil(Clock::now() + wait);
      receive();
      while (const auto message = nextMessage()) takeMessage(*message);
    }
    flush();
    if (inStart_ == in_.size()) {
      wipe(in_);
      in_.clear();
      inStart_ = 0;
    }
  } catch (const kj::Exception&) { die(Code::protocolError); } catch (...) {
    // Also when memory ran out: questions are open that nobody waits for.
    dead_ = true;
    throw;
  }
  if (failure) throw *failure;
}

}  // namespace sallyport::client
