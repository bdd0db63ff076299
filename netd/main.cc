// main.cc - netd: the monitor. docs/man/netd.8. Opens everything, locks itself down, then starts the workers that face
// the network.
#include <signal.h>
#include <sodium.h>
#include <sys/resource.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include <CLI/CLI.hpp>
#include <kj/exception.h>

#include "common/config.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "common/quiet_kj.h"
#include "netd/monitor.h"
#include "sandbox/sandbox.h"

namespace sallyport::netd {
namespace {

// At start a person reads: the words of the whole program's manner (docs/man/sallyport.1).
int fail(const std::string& message, const std::string& hint = {}) {
  std::fprintf(stderr, "sallyport: error: %s\n", message.c_str());
  if (!hint.empty()) std::fprintf(stderr, "sallyport: hint: %s\n", hint.c_str());
  return 1;
}

sandbox::Options sandboxOptions(const Monitor& monitor) {
  const Config& config = monitor.config();
  sandbox::Options options;
  options.profile = sandbox::Profile::Netd;
  options.requirement = config.net.requireSandbox;
  options.user = config.net.user;
  options.paths.push_back({config.file.parent_path(), sandbox::PathAccess::Read, true});
  for (const auto& program : monitor.programs())
    options.paths.push_back({program, sandbox::PathAccess::Execute, false});
  const auto allowSocket = [&options](const std::filesystem::path& socket) {
    options.paths.push_back({socket.parent_path(), sandbox::PathAccess::Sockets, true});
  };
  allowSocket(config.net.socket);
  allowSocket(config.net.adminSocket);
  allowSocket(config.vault.netSocket);
  const auto allowListener = [&allowSocket](const std::optional<Address>& address) {
    if (address && std::holds_alternative<UnixAddress>(*address)) allowSocket(std::get<UnixAddress>(*address).path);
  };
  allowListener(config.net.metrics);
  for (const auto& entry : config.listens) allowListener(entry.address);
  for (const auto& entry : config.connects) allowListener(entry.listen);
  return options;
}

// Two descriptors a tunnel, and all of them may land on one worker. Root may raise the hard limit; others have what
// they have.
void raiseDescriptorLimit(const LimitsConfig& limits) {
  rlimit wanted{};
  if (getrlimit(RLIMIT_NOFILE, &wanted) != 0) return;
  const rlim_t needed = 2 * rlim_t{limits.connections} + 1024;
  if (wanted.rlim_max < needed) {
    const rlimit more{.rlim_cur = needed, .rlim_max = needed};
    if (setrlimit(RLIMIT_NOFILE, &more) == 0) return;
  }
  wanted.rlim_cur = wanted.rlim_max;
  setrlimit(RLIMIT_NOFILE, &wanted);
}

int serve(const std::filesystem::path& file) {
  auto config = loadConfig(file);
  if (!config) {
    for (const ConfigError& error : eachOf(config.error())) fail(format(error, file), error.hint);
    return 1;
  }
  for (const auto& warning : config->warnings) logWarning(warning);

  raiseDescriptorLimit(config->limits);
  EventLoop loop;
  Monitor monitor(loop, std::move(*config));
  SignalWatcher signals(loop, {SIGCHLD, SIGTERM, SIGINT, SIGHUP}, [&](int signal) {
    if (signal == SIGCHLD) return monitor.onChildExit();
    if (signal == SIGHUP) {
      const auto outcome = monitor.reloadFile();
      if (!outcome) logError("not reloaded: " + outcome.error().text());
      return;
    }
    monitor.drain();
  });
  ::signal(SIGPIPE, SIG_IGN);
  if (auto opened = monitor.openListeners(); !opened) {
    return fail(format(opened.error(), file), opened.error().hint);
  }

  sandbox::Sandbox sandbox(sandboxOptions(monitor));
  auto report = sandbox.lockDown();
  if (!report) return fail(report.error().message, report.error().hint);
  logInfo("monitor ready sandbox=" + std::string(sandbox::name(report->verdict())));

  monitor.start(decodeReport(encodeReport(*report)));
  loop.run();
  return monitor.failed() ? 1 : 0;
}

}  // namespace
}  // namespace sallyport::netd

int main(int argc, char** argv) {
  using namespace sallyport;
  QuietKj quiet;
  CLI::App app{"netd - the network side of Sallyport: listeners, dialling, workers; see netd(8)"};
  std::string file;
  app.add_option("-c,--config", file,
                 "configuration (default: sallyport.toml here, then /etc/sallyport/sallyport.toml)");
  app.set_version_flag("-V,--version", "netd " SALLYPORT_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    netd::fail(sanitized(e.what()), "try `netd --help`");
    return 2;
  }
  startLog("netd");
  if (sodium_init() < 0) return 1;
  try {
    return netd::serve(findConfigFile(file));
  } catch (const kj::Exception& e) {
    return netd::fail(sanitized(std::string(e.getDescription().cStr())));
  } catch (const std::exception& e) { return netd::fail(sanitized(e.what())); }
}
