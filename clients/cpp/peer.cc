// peer.cc - see include/sallyport/peer.h. Part of: libsallyport (the caller's process).
// What must never happen here: bytes of two codes in one answer, or an end that netd didn't tell.
#include "clients/cpp/include/sallyport/peer.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "clients/cpp/key_impl.h"
#include "common/capnp_bytes.h"
#include "proto/net.capnp.h"

namespace sallyport::client {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint64_t NETWORK = capnp::typeId<proto::Network>();
constexpr uint64_t LISTENER = capnp::typeId<proto::Listener>();
constexpr uint64_t CHANNEL = capnp::typeId<proto::PeerChannel>();
enum NetworkMethod : uint16_t { LISTEN = 1, CONNECT_PEER = 4 };
enum ListenerMethod : uint16_t { ACCEPT_PEER = 2 };
enum ChannelMethod : uint16_t { SEND = 0, RECEIVE = 1, FINISH = 2, CLOSE = 3 };

constexpr size_t SEND_BYTES = 512 * 1024;         // in one call
constexpr size_t LIMITED_SEND_BYTES = 64 * 1024;  // with a limit: each answer is progress
constexpr size_t SENDS_AHEAD = 4;

// A connection to netd and the one object that it is for.
struct Object {
  std::unique_ptr<Wire> wire;
  uint32_t id = 0;
};

constexpr Code netCode(proto::NetRefusal refusal) { return static_cast<Code>(NET_CODES + static_cast<int>(refusal)); }
static_assert(netCode(proto::NetRefusal::UNKNOWN_NAME) == Code::netUnknownName);
static_assert(netCode(proto::NetRefusal::NOT_A_CHANNEL) == Code::netNotAChannel);
static_assert(netCode(proto::NetRefusal::TIMED_OUT) == Code::netTimedOut);
static_assert(netCode(proto::NetRefusal::UNREACHABLE) == Code::netUnreachable);
static_assert(netCode(proto::NetRefusal::HANDSHAKE_FAILED) == Code::netHandshakeFailed);
static_assert(netCode(proto::NetRefusal::VAULT_REFUSED) == Code::netVaultRefused);
static_assert(netCode(proto::NetRefusal::TOO_BIG) == Code::netTooBig);
static_assert(netCode(proto::NetRefusal::CLOSED) == Code::netClosed);
static_assert(netCode(proto::NetRefusal::TOO_MANY_OBJECTS) == Code::netTooManyObjects);
static_assert(netCode(proto::NetRefusal::FAILED) == Code::netFailed);
static_assert(netCode(proto::NetRefusal::SHUTTING_DOWN) == Code::netShuttingDown);
static_assert(netCode(proto::NetRefusal::WRONG_PROTOCOL) == Code::netWrongProtocol);
static_assert(netCode(proto::NetRefusal::RESERVED_CODE) == Code::netReservedCode);

template <typename Params, typename Results, typename Fill, typename Take>
void ask(Wire& wire, uint64_t interface, uint16_t method, std::optional<uint32_t> target, milliseconds patience,
         Fill fill, Take take) {
  Call call = makeCall<Params, Results>(interface, method, target, 128, fill, take);
  wire.askAll({&call, 1}, patience);
}

// Asks for an object by its `name`, which a refusal is told with. `take` gets the outcome, the caller the object's id.
template <typename Params, typename Results, typename Fill, typename Take>
uint32_t askForObject(Wire& wire, uint64_t interface, uint16_t method, std::optional<uint32_t> target,
                      milliseconds patience, const std::string& name, Fill fill, Take take) {
  Code refusal = Code::ok;
  uint32_t object = 0;
  ask<Params, Results>(wire, interface, method, target, patience, fill, [&](auto results, std::optional<uint32_t> id) {
    const auto outcome = results.getOutcome();
    if (outcome.isRefused()) {
      refusal = netCode(outcome.getRefused());
      return;
    }
    if (!id) throw Error(Code::protocolError);
    object = *id;
    take(outcome);
  });
  if (refusal != Code::ok) throw Error(refusal, name);
  return object;
}

void check(proto::SendOutcome::Reader outcome) {
  switch (outcome.which()) {
    case proto::SendOutcome::SENT: return;
    case proto::SendOutcome::REFUSED: throw Error(netCode(outcome.getRefused()));
    case proto::SendOutcome::BROKEN: throw Error(Code::broken, outcome.getBroken().cStr());
  }
  throw Error(Code::protocolError);
}

void checkTimeout(milliseconds timeout) {
  if (timeout.count() < 0 || timeout.count() > UINT32_MAX) throw Error(Code::badArgument, "timeout");
}

// The one rule of the document about threads: who breaks it is told.
class OneCaller {
 public:
  explicit OneCaller(std::atomic_flag& flag) : flag_(flag) {
    if (flag_.test_and_set()) throw Error(Code::badArgument, "a channel is used by one thread at a time");
  }
  ~OneCaller() { flag_.clear(); }
  OneCaller(const OneCaller&) = delete;

 private:
  std::atomic_flag& flag_;
};

}  // namespace

struct PeerChannel::Impl {
  Object object;
  std::string address;
  std::atomic_flag inCall = ATOMIC_FLAG_INIT;
  milliseconds sendTimeout = FOR_EVER;
  std::string givenUp;  // the reason that later calls tell, once a call was given up

  Wire& wire() {
    if (!givenUp.empty()) throw Error(Code::broken, givenUp);
    if (!object.wire) throw Error(Code::closed);
    return *object.wire;
  }

  // A call that takes too long is given up, and the connection to netd with it: the peer sees at once that no more
  // comes.
  template <typename Ask>
  void askOrGiveUp(const char* reason, const char* detail, Ask ask) {
    Wire& netd = wire();
    try {
      ask(netd);
    } catch (const Error& error) {
      if (error.code() != Code::timedOut) throw;
      netd.hangUp();
      object.wire = nullptr;
      givenUp = reason;
      throw Error(Code::timedOut, detail);
    }
  }

  // For calls that are answered when what they sent has left, which the peer may delay as long as it likes.
  void askSending(std::span<Call> calls) {
    askOrGiveUp("send_given_up", "the peer doesn't read, so netd took no more; the channel is broken",
                [&](Wire& netd) { netd.askAllWithin(calls, sendTimeout == FOR_EVER ? Wire::FOR_EVER : sendTimeout); });
  }
};

struct PeerListener::Impl {
  std::string path;
  std::string name;
  Options options;
  Object next;  // the connection on which the next channel is waited for

  void begin() {
    next.wire = nullptr;
    auto wire = std::make_unique<Wire>(path, options.timeout);
    next.id = askForObject<proto::Network::ListenParams, proto::Network::ListenResults>(
        *wire, NETWORK, LISTEN, std::nullopt, {}, name, [&](auto params) { params.setName(toCapnp(name)); },
        [](auto) {});
    next.wire = std::move(wire);
  }
};

const char* name(PeerStatus status) noexcept {
  switch (status) {
    case PeerStatus::complete: return "complete";
    case PeerStatus::slowPeer: return "slowPeer";
    case PeerStatus::tooBig: return "tooBig";
    case PeerStatus::ended: return "ended";
    case PeerStatus::broken: return "broken";
  }
  return "unknown";
}

PeerChannel::PeerChannel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PeerChannel::PeerChannel(PeerChannel&&) noexcept = default;
PeerChannel& PeerChannel::operator=(PeerChannel&&) noexcept = default;
PeerChannel::~PeerChannel() = default;

PeerChannel PeerChannel::connect(const std::string& path, std::string_view name, Options options) {
  auto impl = std::make_unique<Impl>();
  impl->object.wire = std::make_unique<Wire>(path, options.timeout);
  impl->object.id = askForObject<proto::Network::ConnectPeerParams, proto::Network::ConnectPeerResults>(
      *impl->object.wire, NETWORK, CONNECT_PEER, std::nullopt, {}, std::string(name),
      [&](auto params) { params.setName(toCapnp(name)); }, [](auto) {});
  return PeerChannel(std::move(impl));
}

void PeerChannel::send(View data, uint32_t code) {
  if (!impl_) throw Error(Code::closed);
  const OneCaller caller(impl_->inCall);
  const size_t most = impl_->sendTimeout == FOR_EVER ? SEND_BYTES : LIMITED_SEND_BYTES;
  std::span<const std::byte> rest = data.bytes();
  do {
    std::vector<Call> calls;
    std::optional<Error> failure;
    do {
      const auto part = rest.first(std::min(rest.size(), most));
      rest = rest.subspan(part.size());
      calls.push_back(Call{.interfaceId = CHANNEL,
                           .methodId = SEND,
                           .target = impl_->object.id,
                           .paramBytes = part.size(),
                           .fill =
                               [part, code](capnp::AnyPointer::Builder any) {
                                 auto params = any.initAs<proto::PeerChannel::SendParams>();
                                 params.setData(toData(part));
                                 params.setCode(code);
                               },
                           .take =
                               [&failure](capnp::AnyPointer::Reader any, std::optional<uint32_t>) {
                                 try {
                                   check(any.getAs<proto::PeerChannel::SendResults>().getOutcome());
                                 } catch (const Error& error) {
                                   if (!failure) failure = error;
                                 }
                               }});
    } while (!rest.empty() && calls.size() < SENDS_AHEAD);
    impl_->askSending(calls);
    if (failure) throw *failure;
  } while (!rest.empty());
}

void PeerChannel::setSendTimeout(milliseconds timeout) {
  if (!impl_) throw Error(Code::closed);
  checkTimeout(timeout);
  const OneCaller caller(impl_->inCall);
  impl_->sendTimeout = timeout;
}

PeerReceived PeerChannel::receive(std::span<std::byte> buffer, milliseconds timeout) {
  if (!impl_) throw Error(Code::closed);
  checkTimeout(timeout);
  const OneCaller caller(impl_->inCall);
  PeerReceived received;
  if (!impl_->givenUp.empty()) {
    received.status = PeerStatus::broken;
    received.reason = impl_->givenUp;
    return received;
  }
  const auto deadline = Clock::now() + timeout;
  for (bool more = true, continued = false; more; continued = true) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    // Nought means for ever: at the very end a moment is left, so that what is there already is still given out.
    const milliseconds wait = timeout == FOR_EVER ? FOR_EVER : std::max(left, milliseconds(1));
    const auto fill = [&](proto::PeerChannel::ReceiveParams::Builder params) {
      params.setMaxBytes(buffer.size() - received.bytes);
      params.setTimeoutMs(static_cast<uint32_t>(wait.count()));
      params.setContinued(continued);
    };
    const auto take = [&](proto::PeerChannel::ReceiveResults::Reader results, std::optional<uint32_t>) {
      const auto answer = results.getReceived();
      const auto data = toBytes(answer.getData());
      if (data.size() > buffer.size() - received.bytes) throw Error(Code::protocolError);
      std::ranges::copy(data, buffer.begin() + static_cast<ptrdiff_t>(received.bytes));
      received.bytes += data.size();
      const auto status = answer.getStatus();
      if (!continued || !data.empty()) received.code = answer.getCode();
      more = status.isMore();
      if (status.isSlowPeer()) received.status = PeerStatus::slowPeer;
      if (status.isEnded()) received.status = PeerStatus::ended;
      if (status.isTooBig()) {
        received.status = PeerStatus::tooBig;
        received.needed = status.getTooBig();
      }
      if (status.isBroken()) {
        received.status = PeerStatus::broken;
        received.reason = status.getBroken().cStr();
      }
    };
    impl_->askOrGiveUp("receive_given_up", "netd didn't answer a receive; the channel is broken", [&](Wire& netd) {
      ask<proto::PeerChannel::ReceiveParams, proto::PeerChannel::ReceiveResults>(
          netd, CHANNEL, RECEIVE, impl_->object.id, timeout == FOR_EVER ? Wire::FOR_EVER : wait, fill, take);
    });
  }
  return received;
}

void PeerChannel::finish() {
  if (!impl_) throw Error(Code::closed);
  const OneCaller caller(impl_->inCall);
  const auto fill = [](auto) {};
  const auto take = [](auto results, std::optional<uint32_t>) { check(results.getOutcome()); };
  Call call = makeCall<proto::PeerChannel::FinishParams, proto::PeerChannel::FinishResults>(
      CHANNEL, FINISH, impl_->object.id, 128, fill, take);
  impl_->askSending({&call, 1});
}

void PeerChannel::close() noexcept {
  if (!impl_ || !impl_->object.wire) return;
  try {
    const OneCaller caller(impl_->inCall);
    const auto wire = std::move(impl_->object.wire);
    ask<proto::PeerChannel::CloseParams, proto::PeerChannel::CloseResults>(
        *wire, CHANNEL, CLOSE, impl_->object.id, {}, [](auto) {}, [](auto, std::optional<uint32_t>) {});
  } catch (...) { return; }  // the connection has ended, and the channel with it
}

const std::string& PeerChannel::address() const {
  if (!impl_) throw Error(Code::closed);
  return impl_->address;
}

PeerListener::PeerListener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PeerListener::PeerListener(PeerListener&&) noexcept = default;
PeerListener& PeerListener::operator=(PeerListener&&) noexcept = default;
PeerListener::~PeerListener() = default;

PeerListener PeerListener::listen(const std::string& path, std::string_view name, Options options) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->name = name;
  impl->options = options;
  impl->begin();
  return PeerListener(std::move(impl));
}

PeerChannel PeerListener::accept(milliseconds timeout) {
  if (!impl_) throw Error(Code::closed);
  checkTimeout(timeout);
  if (!impl_->next.wire || !impl_->next.wire->alive()) impl_->begin();
  auto channel = std::make_unique<PeerChannel::Impl>();
  channel->object.id = askForObject<proto::Listener::AcceptPeerParams, proto::Listener::AcceptPeerResults>(
      *impl_->next.wire, LISTENER, ACCEPT_PEER, impl_->next.id, timeout == FOR_EVER ? Wire::FOR_EVER : timeout,
      impl_->name, [&](auto params) { params.setTimeoutMs(static_cast<uint32_t>(timeout.count())); },
      [&](auto outcome) { channel->address = outcome.getAccepted().getAddress().cStr(); });
  // The channel keeps this connection, and its listener takes no more: the next channel gets one of its own.
  impl_->next.wire->release(impl_->next.id);
  channel->object.wire = std::move(impl_->next.wire);
  return PeerChannel(std::move(channel));
}

}  // namespace sallyport::client
