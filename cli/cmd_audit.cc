// cmd_audit.cc - sallyport audit verify|tail|export: the vault's audit log, read by whoever may read its folder. Part
// of: cli. Needs no secret of the vault; verify.key, which checks that no record was forged, is asked for by name.
#include <poll.h>

#include <charconv>
#include <deque>

#include "cli/audit_files.h"
#include "cli/commands.h"
#include "cli/daemon_client.h"
#include "cli/load_config.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "proto/vault_admin.capnp.h"
#include "vaultd/audit_log.h"
#include "vaultd/private_file.h"

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;
using vaultd::AuditHead;
using vaultd::AuditKey;
using vaultd::AuditRecord;

constexpr int FOLLOW_MS = 250;
constexpr int ATTEMPTS = 3;  // at a log that is being written to

// Where the log is, and whom to ask about it.
struct Place {
  fs::path folder;
  std::optional<unsigned> files;
  fs::path adminSocket;  // empty: nobody
};

// --folder, or [audit] of the configuration; the error has been printed.
std::optional<Place> placeOf(const Arguments& arguments) {
  if (arguments.has("--folder")) return Place{arguments.get("--folder"), {}, {}};
  const auto config = loadConfigOrFail(arguments);
  if (!config) return std::nullopt;
  if (!config->audit.enabled) {
    fail("there is no [audit] in " + config->file.string() + ": the vault keeps no log", "or name one with --folder");
    return std::nullopt;
  }
  return Place{config->audit.folder, config->audit.files, config->vault.adminSocket};
}

// A record that must be in the log, and who says so.
struct NotedHead {
  AuditHead head;
  std::string whose;
  uint64_t oldest = UINT64_MAX;  // the first record that is kept, where that is known
};

std::optional<AuditHead> parseHead(const std::string& text) {
  const auto colon = text.find(':');
  if (colon == text.npos) return std::nullopt;
  AuditHead head;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + colon, head.seq);
  const auto bytes = fromHex(std::string_view(text).substr(colon + 1));
  if (fault != std::errc() || end != text.data() + colon || !bytes || bytes->size() != vaultd::AuditChain::SIZE) {
    return std::nullopt;
  }
  head.chain = vaultd::AuditChain(*bytes);
  return head;
}

std::string toString(const AuditHead& head) { return std::to_string(head.seq) + ":" + toHex(head.chain.span()); }

// What the running vault has written last; nothing if none answers.
std::optional<NotedHead> headOfVault(const Place& place) {
  if (place.adminSocket.empty()) return std::nullopt;
  EventLoop loop;
  auto vault = DaemonClient::connect(loop, place.adminSocket);
  if (!vault) return std::nullopt;
  const auto answer = answerOf(loop, (*vault)->as<proto::Admin>().statusRequest().send());
  if (!answer) return std::nullopt;
  const auto audit = answer->getStatus().getAudit();
  const auto chain = audit.getChain();
  if (audit.getSeq() == 0 || chain.size() != vaultd::AuditChain::SIZE) return std::nullopt;
  return NotedHead{{audit.getSeq(), vaultd::AuditChain(std::as_bytes(std::span(chain.begin(), chain.size())))},
                   "the running vault",
                   audit.getOldest()};
}

// What the log's own state says was written at least; nothing if it has none.
Result<std::optional<NotedHead>, std::string> headOfState(const Place& place) {
  const auto path = place.folder / "state";
  bool missing = false;
  const auto text = vaultd::readPrivate(path, {}, &missing);
  if (missing) return std::optional<NotedHead>();
  if (!text) return refuse(text.error().message);
  if (text->empty()) return std::optional<NotedHead>();  // as a crash in the first of all writes leaves it
  const auto known = vaultd::AuditLog::knownBy(asBytes(text->expose()));
  if (!known) return refuse(path.string() + " is damaged: with this state the vault will refuse to start");
  return std::optional(NotedHead{known->head, path.string(), known->oldest});
}

Result<AuditKey, std::string> readKey(const fs::path& path, bool* missing = nullptr) {
  const auto text = vaultd::readPrivate(path, {}, missing);
  if (!text) return refuse(text.error().message);
  auto key = vaultd::parseVerifyKey(text->expose());
  if (!key) return refuse(path.string() + " is not the key of an audit log");
  return std::move(*key);
}

// All that verify and export need to know of a log that is right.
struct Checked {
  AuditSummary summary;
  std::vector<AuditSource> sources;
};

Result<Checked, std::string> checkOnce(const AuditSources& sources, const std::optional<AuditKey>& key,
                                       const std::vector<NotedHead>& noted) {
  if (!sources) return refuse(sources.error());
  std::string wrong;
  std::optional<AuditKey> copy;
  if (key) copy.emplace(key->expose());
  const auto summary = checkAudit(*sources, std::move(copy), [&](const AuditRecord& record, std::string_view line) {
    for (const auto& each : noted) {
      if (each.head.seq != record.seq || vaultd::parseAuditLine(line)->chain == each.head.chain) continue;
      wrong = "record " + std::to_string(record.seq) + " is not the one that " + each.whose +
              " knows: the log was written anew";
    }
  });
  if (!summary) return refuse(summary.error());
  if (!wrong.empty()) return refuse(wrong);
  for (const auto& each : noted) {
    if (each.head.seq > summary->head.seq) {
      return refuse("the log ends with record " + std::to_string(summary->head.seq) + ", but " + each.whose +
                    " knows record " + std::to_string(each.head.seq) + ": its end was cut off");
    }
    if (summary->first > each.oldest) {
      return refuse("records " + std::to_string(each.oldest) + " to " + std::to_string(summary->first - 1) +
                    " are missing: " + each.whose + " has not overwritten them");
    }
    if (each.head.seq < summary->first) {
      return refuse("record " + std::to_string(each.head.seq) + ", which " + each.whose +
                    " knows, is not in it any more: the log begins with " + std::to_string(summary->first));
    }
  }
  return Checked{*summary, *sources};
}

// A vault may be writing: what looks wrong because files were read one after the other is right the next time.
template <typename Read>
Result<Checked, std::string> checkPatiently(Read&& read, const std::optional<AuditKey>& key,
                                            const std::vector<NotedHead>& noted, bool living) {
  auto checked = checkOnce(read(), key, noted);
  for (int i = 1; living && !checked && i < ATTEMPTS; ++i) {
    ::poll(nullptr, 0, FOLLOW_MS);
    checked = checkOnce(read(), key, noted);
  }
  return checked;
}

// "2026-11-21T07:23:53.123Z #17 box ok: key backup version 1, peer alice, 3 items, 1200 bytes, by uid 1001 (pid 42) on
// main"
std::string readable(const AuditRecord& record) {
  std::string text = vaultd::formatAuditTime(record.timeMs) + " #" + std::to_string(record.seq) + " " + record.verb +
                     " " + record.outcome;
  std::string details;
  const auto add = [&](const std::string& detail) { details += (details.empty() ? ": " : ", ") + detail; };
  if (!record.key.empty()) {
    add("key " + record.key + (record.version == 0 ? "" : " version " + std::to_string(record.version)));
  }
  if (!record.entry.empty()) add("entry " + record.entry);
  if (!record.peer.empty()) add("peer " + record.peer);
  if (!record.domain.empty()) add("domain " + record.domain);
  if (record.items != 0) add(std::to_string(record.items) + (record.items == 1 ? " item" : " items"));
  if (record.bytes != 0) add(std::to_string(record.bytes) + " bytes");
  if (record.caller) {
    add("by uid " + std::to_string(record.caller->uid) + " gid " + std::to_string(record.caller->gid) + " (pid " +
        std::to_string(record.caller->pid) + ") on " + record.caller->socket);
  }
  if (!record.note.empty()) add(record.note);
  return text + details;
}

// --since: the number of a record, or a time, which may end after the day or the second.
struct Since {
  uint64_t seq = 0;
  int64_t timeMs = INT64_MIN;
};
std::optional<Since> parseSince(std::string text) {
  Since since;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), since.seq);
  if (fault == std::errc() && end == text.data() + text.size()) return since;
  since.seq = 0;
  if (text.size() == sizeof("2026-11-21") - 1) text += "T00:00:00Z";
  if (text.size() == sizeof("2026-11-21T07:23:53Z") - 1 && text.back() == 'Z') text.insert(text.size() - 1, ".000");
  const auto timeMs = vaultd::parseAuditTime(text);
  if (!timeMs) return std::nullopt;
  since.timeMs = *timeMs;
  return since;
}

int markExported(const Place& place, uint64_t seq) {
  EventLoop loop;
  auto vault = DaemonClient::connect(loop, place.adminSocket);
  if (!vault) return fail("not marked: vaultd " + vault.error().message, vault.error().hint);
  auto request = (*vault)->as<proto::Admin>().auditExportedRequest();
  request.setSeq(seq);
  const auto answer = answerOf(loop, request.send());
  if (!answer) return fail("not marked: vaultd " + answer.error());
  const auto outcome = answer->getOutcome();
  if (outcome.isRefused()) return fail("not marked: " + std::string(outcome.getRefused().getProblem().cStr()));
  say(std::string(outcome.getDone().cStr()));
  return EXIT_DONE;
}

}  // namespace

int auditVerify(const Arguments& arguments) {
  std::vector<NotedHead> noted;
  if (arguments.has("--head")) {
    const auto head = parseHead(arguments.get("--head"));
    if (!head) return failUsage("--head needs SEQ:HASH", "as `sallyport audit verify` printed them");
    noted.push_back({*head, "--head"});
  }
  std::optional<Place> place;
  std::optional<AuditKey> key;
  bool living = false;
  if (arguments.words.empty()) {
    place = placeOf(arguments);
    if (!place) return EXIT_FAILED;
    // Before the files are read: what the vault knows now must be in them then.
    if (auto head = headOfVault(*place)) {
      noted.push_back(std::move(*head));
      living = true;
    }
    auto state = headOfState(*place);
    // A living vault may be writing it, and knows more.
    if (!state && !living) return fail(state.error(), "keep the files as they are, and compare with a copy");
    if (state && *state && (*state)->head.seq > 0) noted.push_back(std::move(**state));
  }
  if (arguments.has("--key") || place) {
    bool missing = false;
    auto read =
        readKey(arguments.has("--key") ? fs::path(arguments.get("--key")) : place->folder / "verify.key", &missing);
    if (read) {
      key = std::move(*read);
    } else if (arguments.has("--key") || !missing) {
      return fail(read.error());
    }
  }
  const auto read = [&] {
    return place ? readAuditFolder(place->folder, place->files) : readAuditExports(arguments.words);
  };
  const auto checked = checkPatiently(read, key, noted, living);
  if (!checked) return fail(checked.error(), "keep the files as they are, and compare with a copy");
  const auto& summary = checked->summary;
  if (!summary.torn.empty() && !living) {
    say(summary.torn + " ends in half a line: a crash while it was written; the next start of the vault cuts it off");
  }
  if (!key)
    warn("no verify.key: the chain holds, but who had the files could have made it whole anew; name it with --key");
  if (summary.first > 1)
    say("records before " + std::to_string(summary.first) +
        " are not here: overwritten, exported apart, or taken away");
  putLine("records " + std::to_string(summary.first) + " to " + std::to_string(summary.head.seq) + " are whole" +
          (key ? " and the vault's own" : "") + (living ? ", up to what the vault knows" : ""));
  putLine("head " + toString(summary.head));
  return finishOutput();
}

int auditTail(const Arguments& arguments) {
  size_t lines = 10;
  if (arguments.has("--lines")) {
    const auto text = arguments.get("--lines");
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), lines);
    if (fault != std::errc() || end != text.data() + text.size()) return failUsage("--lines needs a number", "-n 10");
  }
  const auto place = placeOf(arguments);
  if (!place) return EXIT_FAILED;
  const bool follow = arguments.has("--follow");
  std::deque<AuditRecord> last;
  uint64_t seen = 0;
  const auto sources = readAuditFolder(place->folder, {});
  if (!sources) return fail(sources.error());
  // People look at it while it is written: whether it is whole is what verify says.
  for (const auto& source : *sources) {
    vaultd::AuditLines text(source.text);
    while (const auto line = text.next()) {
      auto parsed = vaultd::parseAuditLine(*line);
      if (!parsed) continue;
      seen = parsed->record.seq;
      last.push_back(std::move(parsed->record));
      if (last.size() > lines) last.pop_front();
    }
  }
  for (const auto& record : last) putLine(readable(record));
  if (!follow) return finishOutput();
  AuditFollower follower(place->folder, seen);
  while (finishOutput() == EXIT_DONE) {
    ::poll(nullptr, 0, FOLLOW_MS);
    for (const auto& record : follower.poll()) putLine(readable(record));
  }
  return EXIT_FAILED;
}

int auditExport(const Arguments& arguments) {
  const auto since = parseSince(arguments.has("--since") ? arguments.get("--since") : "0");
  if (!since)
    return failUsage("--since needs the number of a record or a time", "e.g. 2026-11-21 or 2026-11-21T07:00:00Z");
  const auto place = placeOf(arguments);
  if (!place) return EXIT_FAILED;
  if (arguments.has("--mark") && place->adminSocket.empty()) {
    return failUsage("--mark asks the vault of the configuration", "leave out --folder");
  }
  const auto read = [&] { return readAuditFolder(place->folder, place->files); };
  const auto checked = checkPatiently(read, std::nullopt, {}, true);
  if (!checked) return fail(checked.error(), "nothing was exported: sallyport audit verify");
  bool begun = false;
  vaultd::AuditChain previous = checked->sources.empty() ? vaultd::AuditChain() : checked->sources[0].header.previous;
  const auto again = checkAudit(checked->sources, std::nullopt, [&](const AuditRecord& record, std::string_view line) {
    if (!begun && (record.seq >= since->seq && record.timeMs >= since->timeMs)) {
      begun = true;
      putLine(vaultd::headerLine({std::nullopt, record.seq, previous}));
    }
    if (begun) putLine(line);
    previous = vaultd::parseAuditLine(line)->chain;
  });
  CHECK(again.has_value());
  if (const int written = finishOutput(); written != EXIT_DONE) return written;
  if (!arguments.has("--mark") || checked->summary.head.seq == 0) return EXIT_DONE;
  return markExported(*place, checked->summary.head.seq);
}

}  // namespace sallyport::cli
