// daemon_client.cc - see daemon_client.h.
#include "cli/daemon_client.h"

#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cli/config_view.h"
#include "common/fd_passing.h"
#include "common/log.h"

namespace sallyport::cli {

using vaultd::Problem;

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

constexpr const char* START_IT =
    "start it with `sallyport up` or its systemd unit; -c FILE names another configuration";

// Who could use a socket that this user may not.
std::string usersOf(const std::filesystem::path& socket) {
  struct stat status {};
  if (::stat(socket.c_str(), &status) != 0) return "run this as root, or as the user of the daemon";
  const passwd* owner = ::getpwuid(status.st_uid);
  const group* members = ::getgrgid(status.st_gid);
  std::string text = "run this as root";
  if (status.st_uid != 0)
    text += " or as " + (owner != nullptr ? owner->pw_name : "uid " + std::to_string(status.st_uid));
  if ((status.st_mode & S_IWGRP) != 0)
    text += ", or as a member of the group " + (members != nullptr ? members->gr_name : std::to_string(status.st_gid));
  return text;
}

}  // namespace

Result<std::unique_ptr<DaemonClient>, Problem> DaemonClient::connect(EventLoop& loop,
                                                                     const std::filesystem::path& socket) {
  if (::access(socket.c_str(), W_OK) != 0) {
    if (errno == EACCES)
      return refuse(Problem{"may not be asked by this user: no permission for " + socket.string(), usersOf(socket)});
    if (errno == ENOENT || errno == ENOTDIR)
      return refuse(Problem{"is not running: there is no " + socket.string(), START_IT});
    return refuse(Problem{"can't be asked: " + socket.string() + ": " + std::strerror(errno), {}});
  }
  try {
    std::unique_ptr<DaemonClient> client(new DaemonClient);
    client->rpc_ = std::make_unique<RpcClient>(loop, connectUnix(socket), clientLimits(),
                                               [self = client.get()] { self->disconnected_ = true; });
    return client;
  } catch (const kj::Exception&) {
    return refuse(Problem{"is not running: nobody answers on " + socket.string(), START_IT});
  }
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
  if (!client) return {false, client.error().message};
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
    if (text[0] == '1' || text[0] == '2') return {true, sanitized(text.substr(1)), {}, text[0] == '2'};
    const auto end = text.find('\n');
    ReloadOutcome refused{false, "refused: " + sanitized(std::string_view(text).substr(1, end - 1))};
    if (end != text.npos) refused.hint = sanitized(std::string_view(text).substr(end + 1));
    return refused;
  } catch (const kj::Exception&) {
    return {false, "is not running: nobody listens on " + adminSocket.string(), {}, false, true};
  }
}

std::vector<std::string> keysNotLoaded(EventLoop& loop, const std::filesystem::path& adminSocket,
                                       const Config& config) {
  auto client = DaemonClient::connect(loop, adminSocket);
  if (!client) return {"vaultd " + client.error().message};
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
