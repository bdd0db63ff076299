// cmd_config.cc - sallyport check and reload: a configuration, before and while it is in force. Part of: cli.
#include "cli/commands.h"
#include "cli/config_view.h"
#include "cli/daemon_client.h"
#include "cli/load_config.h"
#include "cli/terminal.h"

namespace sallyport::cli {

int check(const Arguments& arguments) {
  const auto config = loadConfigOrFail(arguments);
  if (!config) return EXIT_FAILED;
  const auto findings = inspectSurroundings(*config);
  for (const auto& line : describeEntries(*config)) putLine(line);
  const int written = finishOutput();
  for (const auto& warning : findings.warnings) warn(warning);
  for (const auto& error : findings.errors) fail(error.message, error.hint);
  if (!findings.errors.empty()) return EXIT_FAILED;
  if (written == EXIT_DONE) say(config->file.string() + " is valid");
  return written;
}

int reload(const Arguments& arguments) {
  const auto file = findConfigFile(arguments.get("--config"));
  const auto text = readConfigText(file);
  if (!text) return failConfig(text.error(), file);
  const auto config = parseConfig(*text, file);
  if (!config) return failConfig(config.error(), file);
  for (const auto& warning : config->warnings) warn(warning);

  // The vault first: netd must not offer what the vault would refuse. A peer taken away is refused from here on.
  EventLoop loop;
  const auto vault = reloadVault(loop, config->vault.adminSocket, *text);
  if (!vault.done) return fail("vaultd " + vault.text, "nothing was changed");
  putLine("vaultd: " + vault.text);
  const auto net = reloadNet(config->net.adminSocket, *text);
  const bool isForVaultAlone = net.absent && !needsNetd(*config);
  if (net.done) putLine("netd: " + net.text);
  if (isForVaultAlone) putLine("netd: not running, and no entry needs it");
  const int written = finishOutput();
  if (!net.done && !isForVaultAlone)
    return fail("netd " + net.text, (net.hint.empty() ? "mend that and reload again" : net.hint) +
                                        "; until then the vault has the new configuration and netd the old one");
  auto waiting = keysNotLoaded(loop, config->vault.adminSocket, *config);
  if (net.restart) waiting.push_back("sockets, workers or user of netd are as before: restart netd");
  for (const auto& line : waiting) warn(line);
  if (!waiting.empty()) return fail("not all of the configuration is in force", "the warnings above name what is not");
  return written;
}

}  // namespace sallyport::cli
