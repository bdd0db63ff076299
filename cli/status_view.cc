// status_view.cc - see status_view.h. The JSON follows the schemas' names; lists of counters become objects.
#include "cli/status_view.h"

#include <algorithm>

#include "cli/config_view.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "common/capnp_bytes.h"
#include "common/log.h"

namespace sallyport::cli {
namespace {

using Counters = capnp::List<proto::Counter>::Reader;
using Layers = capnp::List<proto::SandboxLayer>::Reader;

std::string text(capnp::Text::Reader reader) { return {reader.cStr(), reader.size()}; }

std::string base64(capnp::Data::Reader data) { return toBase64(toBytes(data)); }

void noteOnce(std::vector<std::string>& words, std::string word) {
  if (std::ranges::find(words, word) == words.end()) words.push_back(std::move(word));
}

std::string joined(const std::vector<std::string>& words) {
  std::string result;
  for (const auto& word : words) result += (result.empty() ? "" : ", ") + word;
  return result;
}

// --- for people ------------------------------------------------------------------------------------------------------

// Counters that are 0 say nothing.
std::string counterTable(std::string_view title, Counters counters) {
  Table table({std::string(title), ""});
  for (const auto counter : counters) {
    if (counter.getValue() != 0) table.add({text(counter.getName()), std::to_string(counter.getValue())});
  }
  return table.empty() ? "" : "\n" + table.render("  ");
}

std::optional<uint64_t> valueOf(Counters counters, std::string_view name) {
  for (const auto counter : counters) {
    if (text(counter.getName()) == name) return counter.getValue();
  }
  return std::nullopt;
}

// What is there now of what a limit bounds: a counter, in these units; and the drop reason of what is too much.
struct Bounded {
  std::string_view limit;
  std::string_view counter;
  uint64_t unit;
  std::string_view reason;
};
constexpr Bounded BOUNDED[] = {
    {"half_open", "half_open", 1, "half_open_limit"},
    {"connections", "connections", 1, "connection_limit"},
    {"half_open_per_source", "busiest_source_half_open", 1, "half_open_limit"},
    {"connections_per_source", "busiest_source_connections", 1, "source_limit"},
    {"handshake_timeout_ms", "", 1, "handshake_timeout"},
    {"idle_timeout_s", "", 1, "idle_timeout"},
    {"accept_timeout_ms", "", 1, "no_acceptor"},
    {"buffer_mib", "buffer_bytes", 1 << 20, "memory_limit"},
};

std::string limitTable(const proto::NetStatus::Reader& status) {
  Table table({"LIMIT", "", "NOW", "DROPPED"});
  for (const auto limit : status.getLimits()) {
    const auto* known = std::ranges::find(BOUNDED, text(limit.getName()), &Bounded::limit);
    std::string now = "-";
    std::string dropped = "-";
    if (known != std::end(BOUNDED)) {
      if (const auto value = valueOf(status.getCounters(), known->counter)) now = std::to_string(*value / known->unit);
      if (const auto value = valueOf(status.getDrops(), known->reason))
        dropped = std::to_string(*value) + " " + std::string(known->reason);
    }
    table.add({text(limit.getName()), std::to_string(limit.getValue()), now, dropped});
  }
  return table.empty() ? "" : "\n" + table.render("  ");
}

// The one limit of the vault that keys share, and how near they come to it.
std::string rateTable(const proto::VaultStatus::Reader& status) {
  const auto limit = valueOf(status.getLimits(), "handshakes_per_second");
  if (!limit) return "";  // an older vault
  Table table({"KEY", "HANDSHAKES A SECOND", "LIMIT", "REFUSED"});
  for (const auto key : status.getKeys()) {
    table.add({text(key.getName()), std::to_string(key.getHandshakesPerSecond()), std::to_string(*limit),
               std::to_string(key.getRateLimited()) + " rate_limited"});
  }
  return table.empty() ? "" : "\n" + table.render("  ");
}

struct SandboxColumn {
  std::string process;
  Layers layers;
};

// Why layers don't hold, one line a reason, with the processes and layers that share it.
std::string sandboxReasons(const std::vector<SandboxColumn>& columns) {
  struct Reason {
    std::string detail;
    std::vector<std::string> processes;
    std::vector<std::string> layers;
  };
  std::vector<Reason> reasons;
  for (const auto& column : columns) {
    for (const auto layer : column.layers) {
      if (text(layer.getState()) == "active") continue;
      auto reason = std::ranges::find(reasons, text(layer.getDetail()), &Reason::detail);
      if (reason == reasons.end()) reason = reasons.insert(reason, {text(layer.getDetail()), {}, {}});
      noteOnce(reason->processes, column.process);
      noteOnce(reason->layers, text(layer.getName()));
    }
  }
  std::string result;
  for (const auto& reason : reasons) {
    result += "  " + sanitized(joined(reason.layers)) + " (" + joined(reason.processes) +
              "): " + sanitized(reason.detail) + "\n";
  }
  return result;
}

// One row a layer, one column a process; below it why layers don't hold.
std::string sandboxTable(const std::vector<SandboxColumn>& columns) {
  std::vector<std::string> names;
  std::vector<std::string> headings{"SANDBOX"};
  for (const auto& column : columns) {
    headings.push_back(column.process);
    for (const auto layer : column.layers) noteOnce(names, text(layer.getName()));
  }
  Table table(headings);
  for (const auto& name : names) {
    std::vector<std::string> row{name};
    for (const auto& column : columns) {
      std::string state = "-";
      for (const auto layer : column.layers) {
        if (text(layer.getName()) == name) state = text(layer.getState());
      }
      row.push_back(state);
    }
    table.add(std::move(row));
  }
  return table.empty() ? "" : "\n" + table.render("  ") + sandboxReasons(columns);
}

// The bound, in microseconds, under which that many of a hundred calls stayed: from buckets that double.
std::string percentile(capnp::List<uint64_t>::Reader buckets, unsigned percent) {
  uint64_t total = 0;
  for (const uint64_t count : buckets) total += count;
  if (total == 0) return "-";
  uint64_t seen = 0;
  for (unsigned i = 0; i + 1 < buckets.size(); ++i) {
    seen += buckets[i];
    if (seen * 100 >= total * percent) return "<" + std::to_string(uint64_t{1} << i) + " us";
  }
  return "more";
}

std::string usesTable(capnp::List<proto::VerbUses>::Reader uses) {
  Table table({"USES", "DONE", "REFUSED", "QUEUED P99", "EXECUTED P99"});
  for (const auto verb : uses) {
    uint64_t refused = 0;
    for (const auto reason : verb.getRefused()) refused += reason.getValue();
    if (verb.getDone() == 0 && refused == 0) continue;
    table.add({text(verb.getVerb()), std::to_string(verb.getDone()), std::to_string(refused),
               percentile(verb.getQueued(), 99), percentile(verb.getExecuted(), 99)});
  }
  return table.empty() ? "" : "\n" + table.render("  ");
}

}  // namespace

std::string tokensText(proto::VaultStatus::Reader status) {
  if (status.getTokens().size() == 0) return {};
  Table tokens({"TOKEN", "STATE", "PRESENCE", "PID", "RESTARTS", "MEMORY", "DENIED", "DERIVED", "REFUSED", "MODULE"});
  Table keys({"KEY", "TOKEN", "PUBLIC KEY", "STATE"});
  std::string notes;
  for (const auto token : status.getTokens()) {
    const auto count = [&](std::string_view name) {
      for (const auto counter : token.getCounters()) {
        if (text(counter.getName()) == name) return std::to_string(counter.getValue());
      }
      return std::string("-");
    };
    const auto denied = text(token.getLastDenied());
    tokens.add({text(token.getName()), text(token.getState()), text(token.getPresence()),
                std::to_string(token.getPid()), std::to_string(token.getRestarts()),
                std::to_string(token.getRssKiB() / 1024) + " MiB",
                std::to_string(token.getDenials()) + (denied.empty() ? "" : " (last " + denied + ")"), count("derived"),
                count("refused"), text(token.getModule())});
    if (!text(token.getWhy()).empty())
      notes += "  token " + sanitized(text(token.getName())) + ": " + sanitized(text(token.getWhy())) + "\n";
    if (text(token.getPage()) == "locked memory")
      notes += "  token " + sanitized(text(token.getName())) + ": its secrets pass through memory that root can read\n";
    for (const auto key : token.getKeys()) {
      const auto problem = text(key.getProblem());
      const auto* const usable = key.getSealed() ? "open" : "proved";
      keys.add(
          {text(key.getName()), text(token.getName()), base64(key.getPublicKey()), problem.empty() ? usable : problem});
    }
  }
  return "\n" + tokens.render("  ") + notes + (keys.empty() ? "" : "\n" + keys.render("  "));
}

namespace {

std::string vaultText(const proto::VaultStatus::Reader& status) {
  std::string result = "vaultd " + sanitized(text(status.getVersion())) + ", pid " + std::to_string(status.getPid()) +
                       ", up " + describeSeconds(status.getUptimeSeconds()) + ", sandbox " +
                       sanitized(text(status.getSandboxVerdict())) + ", secrets in " +
                       sanitized(text(status.getMemory())) + "\n";
  Table keys({"KEY", "STATE", "PROTECTION", "NONCES", "PUBLIC KEY"});
  for (const auto key : status.getKeys()) {
    const bool isBlock = key.hasParty();
    const auto nonces = !isBlock ? text(key.getNonce())
                                 : "party " + text(key.getParty()) +
                                       (key.hasBaseMode() ? ", base mode: " + text(key.getBaseMode()) : "");
    keys.add({text(key.getName()), text(key.getState()), text(key.getSealed()), nonces, base64(key.getPublicKey())});
  }
  if (!keys.empty()) result += "\n" + keys.render("  ");
  result += rateTable(status);
  const auto audit = status.getAudit();
  if (text(audit.getState()) != "off") {
    result += "\n  audit log " + sanitized(text(audit.getState())) + ", records " + std::to_string(audit.getOldest()) +
              " to " + std::to_string(audit.getSeq()) + (audit.getRequired() ? ", required" : "") + ", lost " +
              std::to_string(audit.getLost()) + "\n";
  }
  result += tokensText(status);
  result += sandboxTable({{"vaultd", status.getSandbox()}});
  result += usesTable(status.getUses());
  result += counterTable("COUNTER", status.getCounters());
  result += counterTable("CLIENTS CUT OFF", status.getClientsCutOff());
  return result;
}

// Why base mode can't use the block, if it can't: an entry of it is ready for one connection, ever.
std::string baseProblemOf(const proto::KeyStatus::Reader& block) {
  const auto told = text(block.getBaseMode());
  if (told.empty() || told == "unused") return "";
  const auto named = "the block of `" + text(block.getName()) + "` ";
  return told == "used" ? named + "is used, and " + std::string(USED_BLOCK_ADVICE)
                        : named + "can't be used in base mode: " + told;
}

// netd's own word, or that the vault hasn't the entry's key, or nothing to serve with; empty: it is ready.
std::string problemOf(const proto::EntryStatus::Reader& entry, const BothStatus& both) {
  const auto key = text(entry.getKey());
  if (!text(entry.getProblem()).empty() || !both.vault || key.empty()) return text(entry.getProblem());
  for (const auto loaded : both.vault->getKeys()) {
    if (text(loaded.getName()) != key) continue;
    const auto why = text(loaded.getProblem());
    if (text(loaded.getState()) == "active")
      return text(entry.getProtocol()) == "peer base" ? baseProblemOf(loaded) : "";
    return "key `" + key + "` is " + text(loaded.getState()) + (why.empty() ? "" : ": " + why);
  }
  return "key `" + key + "` is not loaded: restart vaultd";
}

// Who would have come in, and how to let him: one line an entry.
std::string refusedPeers(const BothStatus& both) {
  std::string result;
  for (const auto entry : both.net->getEntries()) {
    const auto key = PublicKey::tryFrom(toBytes(entry.getRefusedKey()));
    if (!key) continue;
    const auto known = both.peers.find(*key);
    const auto spelled = toBase64(key->span());
    result += "  " + sanitized(text(entry.getName())) + " refused " +
              (known == both.peers.end() ? spelled : "peer " + known->second + ", " + spelled + ",") + " " +
              describeSeconds(entry.getRefusedSecondsAgo()) + " ago; to let it in, if you know whose it is: " +
              (known == both.peers.end() ? "`sallyport peer add NAME " + spelled + "`, then NAME" : known->second) +
              " into `allow`\n";
  }
  return result;
}

std::string netText(const BothStatus& both) {
  const auto& status = *both.net;
  std::string result = "netd " + sanitized(text(status.getVersion())) + ", vault " +
                       sanitized(text(status.getVault())) + (status.getDraining() ? ", draining" : "") + "\n\n";
  Table processes({"PROCESS", "PID", "UP", "RESTARTS", "SANDBOX"});
  std::vector<SandboxColumn> columns;
  const auto add = [&](const std::string& name, const proto::ProcessStatus::Reader& process) {
    processes.add({name, std::to_string(process.getPid()), describeSeconds(process.getUptimeSeconds()),
                   std::to_string(process.getRestarts()), text(process.getSandboxVerdict())});
    columns.push_back({name, process.getSandbox()});
  };
  add("monitor", status.getMonitor());
  for (unsigned i = 0; i < status.getWorkers().size(); ++i) add("worker " + std::to_string(i), status.getWorkers()[i]);
  result += processes.render("  ");
  Table entries({"ENTRY", "DIRECTION", "PROTOCOL", "ADDRESS", "ACCEPTED", "HANDSHAKES", "DROPS", "STATE"});
  for (const auto entry : status.getEntries()) {
    const auto problem = problemOf(entry, both);
    entries.add({text(entry.getName()), text(entry.getDirection()), text(entry.getProtocol()), text(entry.getAddress()),
                 std::to_string(entry.getAccepted()), std::to_string(entry.getHandshakes()),
                 std::to_string(entry.getDrops()), problem.empty() ? "ready" : problem});
  }
  if (!entries.empty()) result += "\n" + entries.render("  ") + refusedPeers(both);
  result += sandboxTable(columns);
  result += limitTable(status);
  result += counterTable("COUNTER", status.getCounters());
  result += counterTable("DROPPED", status.getDrops());
  return result;
}

// --- JSON ------------------------------------------------------------------------------------------------------------

void writeCounters(JsonWriter& json, std::string_view name, Counters counters) {
  json.key(name).beginObject();
  for (const auto counter : counters) json.member(text(counter.getName()), counter.getValue());
  json.end();
}

void writeLayers(JsonWriter& json, Layers layers) {
  json.key("sandbox").beginArray();
  for (const auto layer : layers) {
    json.beginObject()
        .member("name", text(layer.getName()))
        .member("state", text(layer.getState()))
        .member("detail", text(layer.getDetail()))
        .end();
  }
  json.end();
}

void writeNumbers(JsonWriter& json, std::string_view name, capnp::List<uint64_t>::Reader numbers) {
  json.key(name).beginArray();
  for (const uint64_t number : numbers) json.value(number);
  json.end();
}

void writeUses(JsonWriter& json, capnp::List<proto::VerbUses>::Reader uses) {
  json.key("uses").beginArray();
  for (const auto verb : uses) {
    json.beginObject().member("verb", text(verb.getVerb())).member("done", verb.getDone());
    writeCounters(json, "refused", verb.getRefused());
    writeNumbers(json, "queued", verb.getQueued());
    writeNumbers(json, "executed", verb.getExecuted());
    json.end();
  }
  json.end();
}

void writeTokens(JsonWriter& json, const proto::VaultStatus::Reader& status) {
  json.key("tokens").beginArray();
  for (const auto token : status.getTokens()) {
    json.beginObject()
        .member("name", text(token.getName()))
        .member("state", text(token.getState()))
        .member("why", text(token.getWhy()))
        .member("hint", text(token.getHint()))
        .member("token", text(token.getToken()))
        .member("module", text(token.getModule()))
        .member("presence", text(token.getPresence()))
        .member("page", text(token.getPage()))
        .member("pid", uint64_t{token.getPid()})
        .member("epoch", uint64_t{token.getEpoch()})
        .member("restarts", token.getRestarts())
        .member("rssKiB", token.getRssKiB())
        .member("denials", token.getDenials())
        .member("lastDenied", text(token.getLastDenied()));
    writeCounters(json, "counters", token.getCounters());
    json.key("sandbox").beginArray();
    for (const auto layer : token.getSandbox()) json.value(text(layer));
    json.end().key("keys").beginArray();
    for (const auto key : token.getKeys()) {
      json.beginObject()
          .member("name", text(key.getName()))
          .member("publicKey", base64(key.getPublicKey()))
          .member("sealed", key.getSealed())
          .member("problem", text(key.getProblem()))
          .member("hint", text(key.getHint()))
          .end();
    }
    json.end().end();
  }
  json.end();
}

void writeVault(JsonWriter& json, const proto::VaultStatus::Reader& status) {
  json.beginObject()
      .member("version", text(status.getVersion()))
      .member("pid", uint64_t{status.getPid()})
      .member("uptimeSeconds", status.getUptimeSeconds())
      .member("sandboxVerdict", text(status.getSandboxVerdict()));
  writeLayers(json, status.getSandbox());
  json.member("memory", text(status.getMemory())).key("keys").beginArray();
  for (const auto key : status.getKeys()) {
    json.beginObject()
        .member("name", text(key.getName()))
        .member("kind", text(key.getKind()))
        .member("party", text(key.getParty()))
        .member("baseMode", text(key.getBaseMode()))
        .member("publicKey", base64(key.getPublicKey()))
        .member("state", text(key.getState()))
        .member("sealed", text(key.getSealed()))
        .member("nonce", text(key.getNonce()))
        .member("version", uint64_t{key.getVersion()})
        .member("token", text(key.getToken()))
        .member("problem", text(key.getProblem()))
        .member("handshakesPerSecond", key.getHandshakesPerSecond())
        .member("rateLimited", key.getRateLimited())
        .end();
  }
  json.end();
  writeCounters(json, "limits", status.getLimits());
  writeTokens(json, status);
  const auto audit = status.getAudit();
  json.key("audit")
      .beginObject()
      .member("state", text(audit.getState()))
      .member("seq", audit.getSeq())
      .member("chain", toHex(std::as_bytes(std::span(audit.getChain().begin(), audit.getChain().size()))))
      .member("oldest", audit.getOldest())
      .member("exported", audit.getExported())
      .member("lost", audit.getLost())
      .member("required", audit.getRequired())
      .end();
  writeCounters(json, "counters", status.getCounters());
  writeCounters(json, "clientsCutOff", status.getClientsCutOff());
  writeUses(json, status.getUses());
  json.end();
}

void writeProcess(JsonWriter& json, const proto::ProcessStatus::Reader& process) {
  json.beginObject()
      .member("pid", uint64_t{process.getPid()})
      .member("uptimeSeconds", process.getUptimeSeconds())
      .member("restarts", uint64_t{process.getRestarts()})
      .member("sandboxVerdict", text(process.getSandboxVerdict()));
  writeLayers(json, process.getSandbox());
  writeCounters(json, "counters", process.getCounters());
  json.end();
}

void writeNet(JsonWriter& json, const BothStatus& both) {
  const auto& status = *both.net;
  json.beginObject()
      .member("version", text(status.getVersion()))
      .member("vault", text(status.getVault()))
      .member("draining", status.getDraining());
  writeProcess(json.key("monitor"), status.getMonitor());
  json.key("workers").beginArray();
  for (const auto worker : status.getWorkers()) writeProcess(json, worker);
  json.end().key("entries").beginArray();
  for (const auto entry : status.getEntries()) {
    json.beginObject()
        .member("name", text(entry.getName()))
        .member("direction", text(entry.getDirection()))
        .member("protocol", text(entry.getProtocol()))
        .member("address", text(entry.getAddress()))
        .member("problem", problemOf(entry, both))
        .member("key", text(entry.getKey()))
        .member("accepted", entry.getAccepted())
        .member("handshakes", entry.getHandshakes())
        .member("drops", entry.getDrops());
    if (entry.getRefusedKey().size() != 0) {
      json.key("refused")
          .beginObject()
          .member("publicKey", base64(entry.getRefusedKey()))
          .member("secondsAgo", entry.getRefusedSecondsAgo())
          .end();
    }
    json.end();
  }
  json.end();
  writeCounters(json, "limits", status.getLimits());
  writeCounters(json, "counters", status.getCounters());
  writeCounters(json, "drops", status.getDrops());
  json.end();
}

}  // namespace

std::string statusText(const BothStatus& both) {
  const auto vault = both.vault ? vaultText(*both.vault) : "vaultd " + both.vaultProblem + "\n";
  const auto net = both.net ? netText(both) : "netd " + both.netProblem + "\n";
  return vault + "\n" + net;
}

std::string statusJson(const BothStatus& both) {
  JsonWriter json;
  json.beginObject().key("vaultd");
  if (both.vault) {
    writeVault(json, *both.vault);
  } else {
    json.beginObject().member("error", both.vaultProblem).end();
  }
  json.key("netd");
  if (both.net) {
    writeNet(json, both);
  } else {
    json.beginObject().member("error", both.netProblem).end();
  }
  return json.end().finish();
}

}  // namespace sallyport::cli
