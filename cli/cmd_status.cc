// cmd_status.cc - sallyport status: asks both daemons, and shows what it got. Part of: cli.
#include "cli/commands.h"
#include "cli/config_view.h"
#include "cli/daemon_client.h"
#include "cli/load_config.h"
#include "cli/status_view.h"
#include "cli/terminal.h"

namespace sallyport::cli {

int status(const Arguments& arguments) {
  const auto config = loadConfigOrFail(arguments);
  if (!config) return EXIT_FAILED;

  EventLoop loop;
  BothStatus both;
  for (const auto& [name, key] : config->peers) both.peers.emplace(key, name);
  // The answers outlive what is read from them.
  auto vault = DaemonClient::connect(loop, config->vault.adminSocket);
  std::optional<capnp::Response<proto::Admin::StatusResults>> vaultAnswer;
  if (!vault) {
    both.vaultProblem = vault.error().message;
  } else if (auto answer = answerOf(loop, (*vault)->as<proto::Admin>().statusRequest().send())) {
    vaultAnswer.emplace(kj::mv(*answer));
    both.vault = vaultAnswer->getStatus();
  } else {
    both.vaultProblem = answer.error();
  }
  auto net = DaemonClient::connect(loop, config->net.socket);
  std::optional<capnp::Response<proto::Network::StatusResults>> netAnswer;
  const bool isForVaultAlone = !net && !needsNetd(*config);
  if (!net) {
    both.netProblem = net.error().message + (isForVaultAlone ? ", and no entry needs it" : "");
  } else if (auto answer = answerOf(loop, (*net)->as<proto::Network>().statusRequest().send())) {
    netAnswer.emplace(kj::mv(*answer));
    both.net = netAnswer->getStatus();
  } else {
    both.netProblem = answer.error();
  }

  // What base mode can't promise is told each time.
  for (const auto& warning : config->warnings) {
    if (warning.find("mode = \"base\"") != warning.npos) warn(warning);
  }
  put(arguments.has("--json") ? statusJson(both) : statusText(both));
  const int written = finishOutput();
  if (both.vault && (both.net || isForVaultAlone)) return written;
  if (both.vault) return fail("netd " + both.netProblem, net ? "" : net.error().hint);
  return fail("vaultd " + both.vaultProblem, vault ? "" : vault.error().hint);
}

}  // namespace sallyport::cli
