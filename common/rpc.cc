// rpc.cc - see rpc.h.
#include "common/rpc.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <map>
#include <vector>

#include <kj/debug.h>
#include <kj/io.h>

#include "common/config.h"
#include "common/log.h"
#include "common/secret_bytes.h"

namespace sallyport {

namespace {

// A message on its way out. Texts that were opened lie in it, so its memory is wiped when it goes back to the heap.
class WipedMessage final : public capnp::MessageBuilder {
 public:
  explicit WipedMessage(size_t firstWords) : nextWords_(std::max<size_t>(firstWords, MIN_WORDS)) {}
  ~WipedMessage() noexcept(false) {
    for (auto& segment : segments_) wipe(std::as_writable_bytes(std::span(segment)));
  }

  kj::ArrayPtr<capnp::word> allocateSegment(uint minimumWords) override {
    auto& segment = segments_.emplace_back(std::max<size_t>(minimumWords, nextWords_));
    nextWords_ += segment.size();  // as much again as there is: few segments, whatever the size becomes
    return {reinterpret_cast<capnp::word*>(segment.data()), segment.size()};
  }

 private:
  static constexpr size_t MIN_WORDS = 64;
  size_t nextWords_;
  std::vector<std::vector<uint64_t>> segments_;  // zero, as Cap'n Proto wants them
};

// TwoPartyVatNetwork with such messages. They go to the link at once: it copies them into its own buffer, which it
// wipes too, so there is nothing to wait for.
class WipingNetwork final : public capnp::TwoPartyVatNetwork {
 public:
  WipingNetwork(Link& link, capnp::rpc::twoparty::Side ours) : TwoPartyVatNetwork(link, ours), link_(link) {}

 private:
  class Outgoing final : public capnp::OutgoingRpcMessage {
   public:
    Outgoing(Link& link, size_t firstWords) : link_(link), message_(firstWords) {}
    capnp::AnyPointer::Builder getBody() override { return message_.getRoot<capnp::AnyPointer>(); }
    void send() override { static_cast<void>(link_.writeMessage(nullptr, message_.getSegmentsForOutput())); }
    size_t sizeInWords() override { return message_.sizeInWords(); }

   private:
    Link& link_;
    WipedMessage message_;
  };

  kj::Own<capnp::OutgoingRpcMessage> newOutgoingMessage(uint firstSegmentWords) override {
    return kj::heap<Outgoing>(link_, firstSegmentWords);
  }

  Link& link_;
};

}  // namespace

struct RpcServer::Client {
  Client(EventLoop& loop, int fd, uid_t peer, LinkLimits limits, capnp::Capability::Client bootstrap)
      : uid(peer),
        link(loop, fd, LinkSide::Server, limits),
        network(link, capnp::rpc::twoparty::Side::SERVER),
        rpc(capnp::makeRpcServer(network, kj::mv(bootstrap))) {
    rpc.setFlowLimit(limits.maxMessageBytes / sizeof(capnp::word) * 8);
  }

  uid_t uid;
  Link link;
  WipingNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
  kj::Promise<void> watching = nullptr;
};

RpcServer::RpcServer(EventLoop& loop, int listenFd, Bootstrap bootstrap, LinkLimits limits, size_t maxClients,
                     LinkBudget* budget)
    : loop_(loop),
      listenFd_(listenFd),
      bootstrap_(std::move(bootstrap)),
      limits_(limits),
      maxClients_(maxClients),
      budget_(budget),
      alive_(std::make_shared<bool>(true)) {
  updateListening();
}

RpcServer::~RpcServer() noexcept(false) {
  *alive_ = false;
  stopAccepting();
}

void RpcServer::stopAccepting() {
  if (listenFd_ < 0) return;
  rest(true);
  close(listenFd_);
  listenFd_ = -1;
}

void RpcServer::rest(bool resting) {
  resting_ = resting;
  updateListening();
}

void RpcServer::updateListening() {
  const bool listening = listenFd_ >= 0 && !resting_ && !paused_;
  if (listening == listening_) return;
  listening_ = listening;
  if (listening)
    loop_.add(listenFd_, EPOLLIN, *this);
  else
    loop_.remove(listenFd_, *this);
}

void RpcServer::onEvents(uint32_t events) {
  // A bounded number a turn: a flood of connections must not starve those connected.
  for (int i = 0; i < 16 && listening_; ++i) {
    const int fd = accept4(listenFd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      const bool dead = (events & (EPOLLHUP | EPOLLERR)) != 0;
      if (dead || (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)) pause();
      return;
    }
    admit(kj::AutoCloseFd(fd));
  }
}

void RpcServer::admit(kj::AutoCloseFd socket, std::optional<uid_t> user) {
  kj::Maybe<capnp::Capability::Client> capability;
  PeerCredentials peer;
  try {
    peer = peerCredentials(socket);
    if (!user && peer.uid == OVERFLOW_ID && onUnnamed) return onUnnamed(kj::mv(socket));
    peer.uid = user.value_or(peer.uid);
    peer.charge = std::make_shared<LinkCharge>();
    capability = bootstrap_(peer);
  } catch (const kj::Exception&) { capability = nullptr; }
  if (capability == nullptr || (clients_.size() >= maxClients_ && !makeRoomFor(peer.uid))) {
    ++stats_.refused;
    return;
  }
  ++stats_.accepted;
  clients_.push_back(
      std::make_unique<Client>(loop_, socket.release(), peer.uid, limits_, kj::mv(KJ_ASSERT_NONNULL(capability))));
  stats_.connected = clients_.size();
  auto self = std::prev(clients_.end());
  if (budget_ != nullptr) (*self)->link.countFor(*budget_, peer.uid, peer.charge);
  auto leave = [this, self] {
    // Not inside the promise that tells us: it belongs to the client that is to die.
    loop_.defer([this, self, alive = alive_] {
      if (*alive) drop(self);
    });
  };
  (*self)->watching = (*self)
                          ->network.onDisconnect()
                          .then([leave] { leave(); }, [leave](kj::Exception&&) { leave(); })
                          .eagerlyEvaluate(nullptr);
}

// All places are taken. The user who has the most loses the one that was silent for the longest, if the newcomer's user
// has fewer than that would leave.
bool RpcServer::makeRoomFor(uid_t uid) {
  std::map<uid_t, size_t> places;
  for (const auto& client : clients_) {
    if (client->link.cutOff() == CutOff::None) ++places[client->uid];
  }
  const auto most = std::ranges::max_element(places, {}, [](const auto& place) { return place.second; });
  if (most == places.end() || most->second <= places[uid] + 1) return false;
  Client* silent = nullptr;
  for (const auto& client : clients_) {
    if (client->uid != most->first || client->link.cutOff() != CutOff::None) continue;
    if (silent == nullptr || client->link.heardMs() < silent->link.heardMs()) silent = client.get();
  }
  silent->link.cutOffAs(CutOff::Crowded);
  return true;
}

// Out of descriptors, or the socket is dead: who waits keeps waiting a moment, instead of us spinning.
void RpcServer::pause() {
  static constexpr auto PAUSE = 100 * kj::MILLISECONDS;
  paused_ = true;
  updateListening();
  resuming_ = loop_.timer()
                  .afterDelay(PAUSE)
                  .then([this] {
                    paused_ = false;
                    updateListening();
                  })
                  .eagerlyEvaluate(nullptr);
}

// A user can have his programs cut off as fast as they connect. Rationed for each, so that he hides nobody else's line.
void RpcServer::logCutOff(CutOff reason, uid_t uid) {
  static constexpr size_t MAX_USERS = 64;  // whose lines are told apart
  if (cutOffLog_.size() >= MAX_USERS && !cutOffLog_.contains(uid)) cutOffLog_.clear();
  if (const auto unlogged = cutOffLog_[uid].take(loop_.nowMs())) {
    logWarning("rpc client cut off reason=" + std::string(name(reason)) + " uid=" + std::to_string(uid) + *unlogged);
  }
}

void RpcServer::drop(std::list<std::unique_ptr<Client>>::iterator client) {
  const CutOff reason = (*client)->link.cutOff();
  if (reason != CutOff::None) {
    ++stats_.cutOff[static_cast<size_t>(reason)];
    logCutOff(reason, (*client)->uid);
    if (onCutOff) onCutOff(reason);
  }
  clients_.erase(client);
  stats_.connected = clients_.size();
  if (budget_ != nullptr) budget_->left();
}

struct RpcClient::State {
  State(EventLoop& loop, int fd, LinkLimits limits)
      : link(loop, fd, LinkSide::Client, limits),
        network(link, capnp::rpc::twoparty::Side::CLIENT),
        rpc(capnp::makeRpcClient(network)) {}

  Link link;
  WipingNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
  kj::Promise<void> watching = nullptr;
};

RpcClient::RpcClient(EventLoop& loop, int fd, LinkLimits limits, std::function<void()> onDisconnect)
    : state_(std::make_unique<State>(loop, fd, limits)) {
  state_->watching = state_->network.onDisconnect()
                         .then([onDisconnect] { onDisconnect(); }, [onDisconnect](kj::Exception&&) { onDisconnect(); })
                         .eagerlyEvaluate(nullptr);
}

RpcClient::~RpcClient() noexcept(false) = default;

capnp::Capability::Client RpcClient::bootstrap() {
  capnp::word scratch[8] = {};
  capnp::MallocMessageBuilder message(scratch);
  auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
  vat.setSide(capnp::rpc::twoparty::Side::SERVER);
  return state_->rpc.bootstrap(vat);
}

namespace {

sockaddr_un unixAddress(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  KJ_REQUIRE(path.native().size() < sizeof address.sun_path,
             "the path of a Unix socket may have 107 characters at most", path.c_str());
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return address;
}

int unixSocket(int type) {
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return fd;
}

}  // namespace

Result<int, ListenFailure> tryListenUnix(const std::filesystem::path& path, mode_t mode, int backlog, int type) {
  const auto failed = [](int error) { return refuse(ListenFailure{std::strerror(error), error}); };
  if (path.native().size() >= sizeof sockaddr_un::sun_path)
    return refuse(ListenFailure{"the path of a Unix socket may have 107 characters at most", ENAMETOOLONG});
  const sockaddr_un address = unixAddress(path);
  kj::AutoCloseFd fd(unixSocket(type));
  struct stat info {};
  if (lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode))
      return refuse(ListenFailure{"something that is not a socket is in the way", EADDRINUSE});
    kj::AutoCloseFd probe(unixSocket(type));
    // A living server with a full queue answers EAGAIN: it lives.
    if (connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN)
      return refuse(ListenFailure{"another process already serves this socket", EADDRINUSE});
    if (unlink(path.c_str()) != 0) {
      const int error = errno;
      return refuse(
          ListenFailure{std::string("can't remove the old socket that is there: ") + std::strerror(error), error});
    }
  }
  // The umask makes the file private from its first moment; the mode is widened before listen().
  const mode_t oldMask = umask(0177);
  const int bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int bindError = errno;
  umask(oldMask);
  if (bound != 0) return failed(bindError);
  if (chmod(path.c_str(), mode) != 0 || listen(fd, backlog) != 0) return failed(errno);
  return fd.release();
}

int listenUnix(const std::filesystem::path& path, mode_t mode, int backlog, int type) {
  auto fd = tryListenUnix(path, mode, backlog, type);
  if (fd) return *fd;
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str("can't listen on ", path.c_str(), ": ", fd.error().why.c_str())));
}

int connectUnix(const std::filesystem::path& path, int type) {
  const sockaddr_un address = unixAddress(path);
  kj::AutoCloseFd fd(unixSocket(type));
  KJ_SYSCALL(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), path.c_str());
  return fd.release();
}

PeerCredentials peerCredentials(int fd) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  KJ_SYSCALL(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length));
  return {credentials.uid, credentials.gid, credentials.pid, fd, nullptr};
}

std::set<gid_t> PeerCredentials::groups() const {
  std::set<gid_t> all{gid};
  socklen_t length = 0;
  // With no room it tells how much it needs; who has no groups needs none.
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, nullptr, &length) == 0 || errno != ERANGE) return all;
  std::vector<gid_t> groups(length / sizeof(gid_t));
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length) == 0)
    all.insert(groups.begin(), groups.end());
  return all;
}

}  // namespace sallyport
