// daemon_client.cc - see daemon_client.h.
#include "cli/daemon_client.h"

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cli/config_view.h"
#include "common/fd_passing.h"
#include "common/log.h"

namespace sallyport::cli {
namespace {

constexpr size_t MAX_ANSWER_BYTES = 64 * 1024;

// Answers may be large: every message of a channel, every counter of every worker.
LinkLimits clientLimits() {
  LinkLimits limits;
  limits.maxMessageBytes = 4 * 1024 * 1024;
  limits.maxSegments = 512;
  limits.maxQueuedBytes = 16 * 1024 * 1024;
  limits.stallTimeoutMs = 3'600'000;  // a daemon that makes us wait is back-pressure, not a fault
  return limits;
}

}  // namespace

Result<std::unique_ptr<DaemonClient>, std::string> DaemonClient::connect(EventLoop& loop,
                                                                         const std::filesystem::path& socket) {
  if (::access(socket.c_str(), W_OK) != 0) {
    if (errno == EACCES) return refuse("may not be asked by this user: no permission for " + socket.string());
    if (errno == ENOENT || errno == ENOTDIR) return refuse("is not running: there is no " + socket.string());
    return refuse(socket.string() + ": " + std::strerror(errno));
  }
  try {
    std::unique_ptr<DaemonClient> client(new DaemonClient);
    client->rpc_ = std::make_unique<RpcClient>(loop, connectUnix(socket), clientLimits(),
                                               [self = client.get()] { self->disconnected_ = true; });
    return client;
  } catch (const kj::Exception&) { return refuse("is not running: nobody answers on " + socket.string()); }
}

std::string describeFailure(const kj::Exception& failure) {
  switch (failure.getType()) {
    case kj::Exception::Type::DISCONNECTED: return "closed the connection without an answer";
    case kj::Exception::Type::OVERLOADED: return "doesn't answer in time";
    case kj::Exception::Type::UNIMPLEMENTED: return "is of another version: it doesn't know this call";
    case kj::Exception::Type::FAILED: break;
  }
  return "failed: " + sanitized(failure.getDescription().cStr());
}

ReloadOutcome reloadVault(EventLoop& loop, const std::filesystem::path& adminSocket, std::string_view configText) {
  auto client = DaemonClient::connect(loop, adminSocket);
  if (!client) return {false, client.error()};
  auto request = (*client)->as<proto::Admin>().reloadRequest(capnp::MessageSize{configText.size() / 8 + 64, 0});
  request.setConfig(kj::heapString(configText.data(), configText.size()));
  auto answer = answerOf(loop, request.send());
  if (!answer) return {false, answer.error()};
  const auto outcome = answer->getOutcome();
  if (outcome.isDone()) return {true, sanitized(outcome.getDone().cStr())};
  return {false, "refused: " + sanitized(outcome.getRefused().getProblem().cStr())};
}

ReloadOutcome reloadNet(const std::filesystem::path& adminSocket, std::string_view configText) {
  const kj::AutoCloseFd file(::memfd_create("sallyport.toml", MFD_CLOEXEC));
  if (file.get() < 0 ||
      ::write(file, configText.data(), configText.size()) != static_cast<ssize_t>(configText.size())) {
    return {false, std::string("can't be handed the configuration: ") + std::strerror(errno)};
  }
  try {
    const kj::AutoCloseFd socket(connectUnix(adminSocket, SOCK_SEQPACKET));
    const int fd = file;
    if (!sendDatagram(socket, asBytes("reload"), std::span(&fd, 1))) return {false, "doesn't take the configuration"};
    pollfd waiting{.fd = socket, .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, static_cast<int>(ANSWER_TIMEOUT_MS)) != 1) return {false, "didn't answer in time"};
    std::vector<std::byte> buffer(MAX_ANSWER_BYTES);
    const auto answer = receiveDatagram(socket, buffer);
    if (!answer || answer->bytes == 0) return {false, "didn't answer"};
    const std::string text(reinterpret_cast<const char*>(buffer.data()), answer->bytes);
    if (text[0] == '1' || text[0] == '2') return {true, sanitized(text.substr(1)), text[0] == '2'};
    return {false, "refused: " + sanitized(text.substr(1))};
  } catch (const kj::Exception&) {
    return {false, "is not running: nobody listens on " + adminSocket.string(), false, true};
  }
}

std::vector<std::string> keysNotLoaded(EventLoop& loop, const std::filesystem::path& adminSocket,
                                       const Config& config) {
  auto client = DaemonClient::connect(loop, adminSocket);
  if (!client) return {"vaultd " + client.error()};
  const auto answer = answerOf(loop, (*client)->as<proto::Admin>().statusRequest().send());
  if (!answer) return {"vaultd " + answer.error()};
  auto missing = keysInUse(config);
  for (const auto key : answer->getStatus().getKeys()) missing.erase(key.getName());
  std::vector<std::string> lines;
  for (const auto& [key, user] : missing) {
    lines.push_back(user + " is not in force: the key `" + key + "` is not loaded: restart vaultd");
  }
  return lines;
}

}  // namespace sallyport::cli
