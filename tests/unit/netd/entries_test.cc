// Goal: a worker gets exactly its share of the configuration, public keys only, and ids mean the same after a reload.
// Method: sallyport.toml through the monitor's encoder and the worker's reader; then messages that no monitor writes.
#include "netd/entries.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include <capnp/message.h>
#include <capnp/serialize.h>

#include "common/capnp_bytes.h"
#include "common/config.h"
#include "netd/memory_file.h"
#include "netd/worker_config.h"
#include "proto/netd_control.capnp.h"
#include "tests/unit/wire/vectors.h"

namespace sallyport::netd {
namespace {

const std::string ALICE = toBase64(test::vector("C"));
const std::string SERVER = toBase64(test::vector("S"));

std::string entryText(const std::string& name, const std::string& service, const std::string& allow) {
  return "[[listen]]\nname = \"" + name + "\"\naddress = \"127.0.0.1:" + std::to_string(7000 + name[0]) +
         "\"\nkey = \"k-" + name + "\"\nallow = [" + allow + "]\nservice = \"" + service + "\"\n";
}
std::string peersText() { return "[peers]\nalice = \"" + ALICE + "\"\nserver = \"" + SERVER + "\"\n"; }

Config configOf(const std::string& text) {
  auto config = parseConfig(text, "/etc/sallyport/sallyport.toml");
  if (!config) {
    ADD_FAILURE() << config.error().message;
    return {};
  }
  return *std::move(config);
}

Entries entriesOf(const std::string& text, EntryIds& ids, unsigned workers = 1, uint64_t generation = 1) {
  return readEntries(encodeWorkerConfig(configOf(text), ids, generation, workers));
}

const std::string THREE =
    entryText("db", "tcp:127.0.0.1:5432", "\"alice\"") +
    "[[connect]]\nname = \"db\"\naddress = \"192.0.2.1:7001\"\nkey = \"me\"\npeer = \"server\"\n" + peersText();

TEST(AWorkersConfiguration, HoldsItsEntriesAndPublicKeys) {
  EntryIds ids;
  const Entries entries = entriesOf(THREE, ids, 1, 7);
  EXPECT_EQ(entries.generation, 7u);
  ASSERT_EQ(entries.byId.size(), 2u);
  const auto listen = entries.find("db", true);
  const auto connect = entries.find("db", false);
  ASSERT_NE(listen, nullptr);
  ASSERT_NE(connect, nullptr);
  EXPECT_NE(listen->id, connect->id);
  EXPECT_EQ(listen->vaultKey, "k-db");
  EXPECT_EQ(listen->service, EntryService::Target);
  EXPECT_TRUE(listen->allows(PublicKey(test::vector("C"))));
  EXPECT_FALSE(listen->allows(PublicKey(test::vector("S"))));
  EXPECT_EQ(listen->allow.at(PublicKey(test::vector("C"))), "alice");
  EXPECT_TRUE(connect->allows(PublicKey(test::vector("S"))));
  EXPECT_FALSE(connect->allows(PublicKey(test::vector("C"))));
  EXPECT_EQ(entries.find(listen->id), listen);
}

TEST(AWorkersConfiguration, HasNoEntryOfAnotherNameDirectionOrNumber) {
  EntryIds ids;
  const Entries entries = entriesOf(THREE, ids);
  EXPECT_EQ(entries.find("d", true), nullptr);
  EXPECT_EQ(entries.find("db ", true), nullptr);
  EXPECT_EQ(entries.find("", false), nullptr);
  EXPECT_EQ(entries.find(0), nullptr);
  EXPECT_EQ(entries.find(99), nullptr);
}

TEST(AWorkersConfiguration, TellsTheServicesApart) {
  EntryIds ids;
  const Entries entries = entriesOf(
      entryText("a", "echo", "\"alice\"") + entryText("b", "channel", "\"server\", \"alice\"") + peersText(), ids);
  EXPECT_EQ(entries.find("a", true)->service, EntryService::Echo);
  EXPECT_EQ(entries.find("b", true)->service, EntryService::Channel);
  EXPECT_EQ(entries.find("b", true)->allow.size(), 2u);
}

TEST(AWorkersConfiguration, SaysNothingOfTargetsAndFiles) {
  EntryIds ids;
  const std::string bytes = test::text(encodeWorkerConfig(
      configOf(entryText("db", "tcp:192.0.2.99:5432", "\"alice\"") + "[vault]\nkeys = \"hidden\"\n" + peersText()), ids,
      1, 1));
  for (const char* secret : {"192.0.2.99", "5432", "hidden", "7100", "/etc/sallyport"}) {
    EXPECT_EQ(bytes.find(secret), std::string::npos) << secret;
  }
}

TEST(AWorkersConfiguration, DividesTheLimitsAndNotTheTimes) {
  EntryIds ids;
  const Entries entries = entriesOf(
      "[limits]\nhalf_open = 10\nconnections = 1000\nbuffer_mib = 64\nidle_timeout_s = 3\nhandshake_timeout_ms = "
      "1234\n" +
          THREE,
      ids, 4);
  EXPECT_EQ(entries.limits.halfOpen, 3u);  // rounded up: never nothing
  EXPECT_EQ(entries.limits.connections, 250u);
  EXPECT_EQ(entries.limits.bufferBytes, 16u << 20);
  EXPECT_EQ(entries.limits.idleTimeoutMs, 3000u);
  EXPECT_EQ(entries.limits.handshakeTimeoutMs, 1234u);
}

TEST(AnEntrysNumber, StaysAsLongAsItsNameAndIsNeverAnothers) {
  EntryIds ids;
  const Entries before =
      entriesOf(entryText("a", "echo", "\"alice\"") + entryText("b", "echo", "\"alice\"") + peersText(), ids);
  const Entries after =
      entriesOf(entryText("c", "echo", "\"alice\"") + entryText("b", "echo", "\"alice\"") + peersText(), ids);
  EXPECT_EQ(before.find("b", true)->id, after.find("b", true)->id);
  const std::set<uint32_t> all = {before.find("a", true)->id, before.find("b", true)->id, after.find("c", true)->id};
  EXPECT_EQ(all.size(), 3u);
  EXPECT_EQ(ids.of(true, "a"), before.find("a", true)->id);
  EXPECT_NE(ids.of(false, "a"), ids.of(true, "a"));
}

// --- what no monitor writes ------------------------------------------------------------------------------------------

template <typename Fill>
std::vector<std::byte> written(Fill&& fill) {
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<proto::WorkerConfig>());
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  const auto* first = reinterpret_cast<const std::byte*>(bytes.begin());
  return {first, first + bytes.size()};
}

TEST(AWorkersConfiguration, ThatIsMalformedIsAnException) {
  EXPECT_THROW(readEntries(written([](auto root) { root.initListens(1)[0].initAllow(1).set(0, 5); })), kj::Exception);
  EXPECT_THROW(readEntries(written([](auto root) {
                 root.initPeers(1)[0].setKey(toData(asBytes("short")));
                 root.initListens(1)[0].initAllow(1).set(0, 0);
               })),
               kj::Exception);
  EXPECT_THROW(readEntries(written([](auto root) { root.initConnects(1)[0].setName("x"); })), kj::Exception);
  EXPECT_THROW(
      readEntries(written([](auto root) { root.initListens(1)[0].setService(static_cast<proto::Service>(9)); })),
      kj::Exception);
}

TEST(AWorkersConfiguration, ThatIsCutIsAnException) {
  EntryIds ids;
  const auto whole = encodeWorkerConfig(configOf(THREE), ids, 1, 1);
  for (size_t length = 8; length < whole.size(); length += 8) {
    EXPECT_THROW(readEntries(ByteSpan(whole).first(length)), kj::Exception) << length;
  }
}

TEST(AMemoryFile, ComesBackWholeAndCannotBeChanged) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100000}}) {
    const std::vector<std::byte> content(size, std::byte{9});
    const auto file = writeMemoryFile("test", content);
    EXPECT_EQ(readMemoryFile(file), content);
    EXPECT_EQ(readMemoryFile(file), content);
    EXPECT_LT(::pwrite(file, "x", 1, 0), 0);
    EXPECT_NE(::ftruncate(file, 5), 0);
  }
}

TEST(AMemoryFile, ThatIsNoneIsAnException) {
  EXPECT_THROW(readMemoryFile(-1), kj::Exception);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  kj::AutoCloseFd read(ends[0]), write(ends[1]);
  EXPECT_THROW(readMemoryFile(read), kj::Exception);
}

}  // namespace
}  // namespace sallyport::netd
