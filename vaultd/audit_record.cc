#include "vaultd/audit_record.h"

#include <sodium.h>

#include <charconv>
#include <chrono>
#include <cstdio>

namespace sallyport::vaultd {

namespace {

constexpr std::string_view CHAIN_DOMAIN = "sallyport audit chain 1";
constexpr std::string_view NEXT_KEY = "sallyport audit next key 1";
constexpr size_t MAX_NOTE_CHARS = 200;
constexpr size_t CHAIN_FIELD_BYTES = sizeof(R"(,"chain":""})") - 1 + 2 * AuditChain::SIZE;
constexpr size_t MAC_FIELD_BYTES = sizeof(R"(,"mac":"")") - 1 + 2 * AuditMac::SIZE;

const unsigned char* uchars(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// BLAKE2b under `key` of chain value and text.
template <typename Out>
Out hashOf(ByteSpan key, const AuditChain& previous, std::string_view text) {
  Out result;
  crypto_generichash_blake2b_state state;
  CHECK(crypto_generichash_blake2b_init(&state, sallyport::uchars(key), key.size(), Out::SIZE) == 0);
  CHECK(crypto_generichash_blake2b_update(&state, previous.data(), AuditChain::SIZE) == 0);
  CHECK(crypto_generichash_blake2b_update(&state, uchars(text), text.size()) == 0);
  CHECK(crypto_generichash_blake2b_final(&state, result.data(), Out::SIZE) == 0);
  sodium_memzero(&state, sizeof state);
  return result;
}
AuditMac macOf(const AuditKey& key, const AuditChain& previous, std::string_view body) {
  return hashOf<AuditMac>(key.expose(), previous, body);
}
AuditChain chainOf(const AuditChain& previous, std::string_view bodyAndMac) {
  return hashOf<AuditChain>(asBytes(CHAIN_DOMAIN), previous, bodyAndMac);
}

// --- writing ---------------------------------------------------------------------------------------------------------

class Fields {
 public:
  explicit Fields(std::string first) : text_(std::move(first)) {}
  Fields& number(std::string_view name, uint64_t value) {
    text_ += ",\"" + std::string(name) + "\":" + std::to_string(value);
    return *this;
  }
  Fields& numberUnlessZero(std::string_view name, uint64_t value) { return value == 0 ? *this : number(name, value); }
  Fields& string(std::string_view name, std::string_view value, size_t most = 96) {
    text_ += ",\"" + std::string(name) + "\":\"" + auditText(value, most) + "\"";
    return *this;
  }
  Fields& stringUnlessEmpty(std::string_view name, std::string_view value, size_t most = 96) {
    return value.empty() ? *this : string(name, value, most);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

// Everything before the mac.
std::string bodyOf(const AuditRecord& record) {
  Fields fields("{\"seq\":" + std::to_string(record.seq));
  fields.string("time", formatAuditTime(record.timeMs));
  if (record.caller) {
    fields.string("socket", record.caller->socket)
        .number("uid", record.caller->uid)
        .number("gid", record.caller->gid)
        .number("pid", record.caller->pid);
  }
  fields.string("verb", record.verb)
      .stringUnlessEmpty("key", record.key)
      .numberUnlessZero("version", record.version)
      .stringUnlessEmpty("entry", record.entry)
      .stringUnlessEmpty("peer", record.peer)
      .stringUnlessEmpty("domain", record.domain)
      .numberUnlessZero("items", record.items)
      .numberUnlessZero("bytes", record.bytes)
      .string("outcome", record.outcome)
      .stringUnlessEmpty("note", record.note, MAX_NOTE_CHARS);
  return fields.take();
}

std::string macField(const AuditMac& mac) { return ",\"mac\":\"" + toHex(mac.span()) + "\""; }
std::string chainField(const AuditChain& chain) { return ",\"chain\":\"" + toHex(chain.span()) + "\"}"; }

// --- reading ---------------------------------------------------------------------------------------------------------

class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}
  bool skip(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }
  bool field(std::string_view name) { return skip(",\"" + std::string(name) + "\":"); }
  template <typename Number>
  bool number(Number& value) {
    const auto [end, fault] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (fault != std::errc()) return false;
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return true;
  }
  bool string(std::string& value) {
    if (!skip("\"")) return false;
    const size_t end = rest_.find('"');
    if (end == std::string_view::npos) return false;
    value = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }
  template <typename Value>
  bool hex(Value& value) {
    std::string text;
    if (!string(text) || text.size() != 2 * Value::SIZE) return false;
    const auto bytes = fromHex(text);
    if (!bytes) return false;
    value = Value(*bytes);
    return toHex(value.span()) == text;
  }
  bool atEnd() const { return rest_.empty(); }
  size_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
};

// Fields that may be missing: true unless the field is there and wrong.
bool optionalString(Cursor& cursor, std::string_view name, std::string& value) {
  return !cursor.field(name) || cursor.string(value);
}
template <typename Number>
bool optionalNumber(Cursor& cursor, std::string_view name, Number& value) {
  return !cursor.field(name) || cursor.number(value);
}

bool readCaller(Cursor& cursor, AuditRecord& record) {
  if (!cursor.field("socket")) return true;
  AuditCaller caller;
  if (!cursor.string(caller.socket) || !cursor.field("uid") || !cursor.number(caller.uid) || !cursor.field("gid") ||
      !cursor.number(caller.gid) || !cursor.field("pid") || !cursor.number(caller.pid)) {
    return false;
  }
  record.caller = std::move(caller);
  return true;
}

bool readBody(Cursor& cursor, AuditRecord& record) {
  std::string time;
  if (!cursor.skip("{\"seq\":") || !cursor.number(record.seq) || !cursor.field("time") || !cursor.string(time)) {
    return false;
  }
  const auto timeMs = parseAuditTime(time);
  if (!timeMs) return false;
  record.timeMs = *timeMs;
  return readCaller(cursor, record) && cursor.field("verb") && cursor.string(record.verb) &&
         optionalString(cursor, "key", record.key) && optionalNumber(cursor, "version", record.version) &&
         optionalString(cursor, "entry", record.entry) && optionalString(cursor, "peer", record.peer) &&
         optionalString(cursor, "domain", record.domain) && optionalNumber(cursor, "items", record.items) &&
         optionalNumber(cursor, "bytes", record.bytes) && cursor.field("outcome") && cursor.string(record.outcome) &&
         optionalString(cursor, "note", record.note);
}

std::string plural(uint64_t first, uint64_t last) {
  return first == last ? "record " + std::to_string(first) + " is"
                       : "records " + std::to_string(first) + " to " + std::to_string(last) + " are";
}

}  // namespace

void advance(AuditKey& key) {
  AuditKey next;
  CHECK(crypto_generichash_blake2b(next.exposeData(), AuditKey::SIZE, uchars(NEXT_KEY), NEXT_KEY.size(),
                                   key.exposeData(), AuditKey::SIZE) == 0);
  key = std::move(next);
}

bool AuditRecord::sameKind(const AuditRecord& other) const {
  return caller == other.caller && verb == other.verb && key == other.key && version == other.version &&
         entry == other.entry && peer == other.peer && domain == other.domain && outcome == other.outcome &&
         note == other.note;
}

std::string auditText(std::string_view text, size_t most) {
  std::string result(text.substr(0, most));
  for (char& c : result) {
    if (c < 0x20 || c > 0x7e || c == '"' || c == '\\') c = '?';
  }
  return result;
}

std::string formatAuditTime(int64_t timeMs) {
  using namespace std::chrono;
  const sys_time<milliseconds> time{milliseconds(timeMs)};
  const auto day = floor<days>(time);
  const year_month_day date(day);
  const hh_mm_ss clock(time - day);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
  return text;
}

std::optional<int64_t> parseAuditTime(std::string_view text) {
  using namespace std::chrono;
  int year = 0;
  unsigned month = 0, day = 0, hour = 0, minute = 0, second = 0, ms = 0;
  char zone = 0;
  if (std::sscanf(std::string(text).c_str(), "%4d-%2u-%2uT%2u:%2u:%2u.%3u%c", &year, &month, &day, &hour, &minute,
                  &second, &ms, &zone) != 8) {
    return std::nullopt;
  }
  const year_month_day date{std::chrono::year(year), std::chrono::month(month), std::chrono::day(day)};
  if (!date.ok()) return std::nullopt;
  const auto time = sys_days(date) + hours(hour) + minutes(minute) + seconds(second) + milliseconds(ms);
  const int64_t timeMs = time.time_since_epoch() / milliseconds(1);
  if (formatAuditTime(timeMs) != text) return std::nullopt;  // one text a moment
  return timeMs;
}

std::string sealRecord(const AuditRecord& record, AuditChain& chain, AuditKey& key) {
  std::string line = bodyOf(record);
  line += macField(macOf(key, chain, line));
  chain = chainOf(chain, line);
  line += chainField(chain);
  advance(key);
  CHECK(line.size() < MAX_AUDIT_LINE_BYTES);
  return line;
}

std::string headerLine(const AuditHeader& header) {
  return "{\"audit\":1" + (header.segment ? ",\"segment\":" + std::to_string(*header.segment) : "") +
         ",\"seq\":" + std::to_string(header.seq) + ",\"previous\":\"" + toHex(header.previous.span()) + "\"}";
}

std::optional<AuditHeader> parseHeader(std::string_view line) {
  AuditHeader header;
  Cursor cursor(line);
  if (!cursor.skip("{\"audit\":1")) return std::nullopt;
  if (cursor.field("segment") && !cursor.number(header.segment.emplace())) return std::nullopt;
  if (!cursor.field("seq") || !cursor.number(header.seq) || header.seq == 0) return std::nullopt;
  if (!cursor.field("previous") || !cursor.hex(header.previous) || !cursor.skip("}") || !cursor.atEnd()) {
    return std::nullopt;
  }
  if (headerLine(header) != line) return std::nullopt;  // one text a header
  return header;
}

std::optional<AuditLine> parseAuditLine(std::string_view line) {
  AuditLine result;
  Cursor cursor(line);
  if (line.size() >= MAX_AUDIT_LINE_BYTES || !readBody(cursor, result.record)) return std::nullopt;
  const std::string_view body = line.substr(0, line.size() - cursor.left());
  if (!cursor.field("mac") || !cursor.hex(result.mac) || !cursor.field("chain") || !cursor.hex(result.chain) ||
      !cursor.skip("}") || !cursor.atEnd()) {
    return std::nullopt;
  }
  if (bodyOf(result.record) != body) return std::nullopt;  // one text a record
  return result;
}

void AuditChecker::useFirstKey(AuditKey key) {
  for (uint64_t seq = 1; seq < nextSeq(); ++seq) advance(key);
  key_ = std::move(key);
}

Result<AuditRecord, std::string> AuditChecker::take(std::string_view line) {
  auto parsed = parseAuditLine(line);
  if (!parsed) return refuse(std::string("this is not a line of an audit log"));
  const uint64_t seq = parsed->record.seq;
  if (seq > nextSeq())
    return refuse("this is record " + std::to_string(seq) + ", but " + plural(nextSeq(), seq - 1) +
                  " missing before it");
  if (seq < nextSeq())
    return refuse("this is record " + std::to_string(seq) + ", behind record " + std::to_string(head_.seq) +
                  ": out of order, or twice");
  const std::string_view bodyAndMac = line.substr(0, line.size() - CHAIN_FIELD_BYTES);
  if (chainOf(head_.chain, bodyAndMac) != parsed->chain) {
    return refuse("this line was changed, or isn't the one that followed record " + std::to_string(head_.seq));
  }
  if (key_) {
    const auto mac = macOf(*key_, head_.chain, bodyAndMac.substr(0, bodyAndMac.size() - MAC_FIELD_BYTES));
    if (!reveal(equalsConstantTime(mac.span(), parsed->mac.span()))) {
      return refuse(std::string("this line was not written by this vault: its chain is right, its mac is not"));
    }
    advance(*key_);
  }
  head_ = {seq, parsed->chain};
  return std::move(parsed->record);
}

Result<void, std::string> AuditChecker::takeHeader(const AuditHeader& header) const {
  if (header.seq > nextSeq()) {
    return refuse("this file begins with record " + std::to_string(header.seq) + ", but " +
                  plural(nextSeq(), header.seq - 1) + " missing before it");
  }
  if (header.seq < nextSeq())
    return refuse("this file begins with record " + std::to_string(header.seq) +
                  ", which was seen before: a copy, or of another log");
  if (header.previous != head_.chain) {
    return refuse("this file doesn't follow record " + std::to_string(head_.seq) + ": changed, or of another log");
  }
  return {};
}

std::optional<std::string_view> AuditLines::next() {
  const size_t end = rest_.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const auto line = rest_.substr(0, end);
  rest_.remove_prefix(end + 1);
  offset_ += end + 1;
  ++number_;
  return line;
}

std::string verifyKeyText(const AuditKey& firstKey) {
  std::string text =
      "sallyport audit key 1\n"
      "# Checks every record of this log, and could make a false one. Move it off this host, to where the log is\n"
      "# checked (sallyport audit verify --key FILE). The vault doesn't need it.\n"
      "key: ";
  // In place: a text put together of others leaves copies of them on the heap.
  const size_t at = text.size();
  const size_t room = sodium_base64_ENCODED_LEN(AuditKey::SIZE, sodium_base64_VARIANT_ORIGINAL);  // with the final 0
  text.resize(at + room);
  sodium_bin2base64(text.data() + at, room, firstKey.exposeData(), AuditKey::SIZE, sodium_base64_VARIANT_ORIGINAL);
  text.back() = '\n';
  return text;
}

std::optional<AuditKey> parseVerifyKey(std::string_view text) {
  if (!text.starts_with("sallyport audit key 1\n")) return std::nullopt;
  AuditLines lines(text);
  while (const auto line = lines.next()) {
    if (!line->starts_with("key: ")) continue;
    auto bytes = fromBase64(line->substr(5));
    if (!bytes || bytes->size() != AuditKey::SIZE) return std::nullopt;
    AuditKey key{ByteSpan(*bytes)};
    wipe(*bytes);
    return key;
  }
  return std::nullopt;
}

}  // namespace sallyport::vaultd
