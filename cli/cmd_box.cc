// cmd_box.cc - sallyport box|open: files of any size, boxed to peers under the vault's keys. Part of: cli.
// docs/protocol.md §11. The vault boxes a fresh content key, once a file; the content itself passes through this
// process alone, block by block. What must never happen here: a byte of output that wasn't found to be genuine, an
// output file under its name that isn't whole.
#include <algorithm>

#include "cli/commands.h"
#include "cli/data_files.h"
#include "cli/key_access.h"
#include "cli/load_config.h"
#include "cli/shown_text.h"
#include "cli/terminal.h"
#include "cli/vault_app.h"
#include "proto/file/box_blocks.h"

namespace sallyport::cli {
namespace {

Result<PublicKey, Problem> peerNamed(const Config& config, const std::string& text) {
  if (const auto found = config.peers.find(text); found != config.peers.end()) return found->second;
  const auto key = parsePublicKey(text);
  if (!key)
    return refuse(Problem{"`" + text + "` is neither a name in [peers] nor a public key", "sallyport peer list"});
  return *key;
}

// "`alice`", or the key.
std::string peerText(const Config& config, const PublicKey& key) {
  for (const auto& [name, known] : config.peers) {
    if (known == key) return "`" + name + "`";
  }
  return toBase64(key.span());
}

// A buffer for texts: wiped when it goes.
struct TextBuffer {
  explicit TextBuffer(size_t size) : bytes(size) {}
  ~TextBuffer() { wipe(bytes); }
  TextBuffer(const TextBuffer&) = delete;
  std::vector<std::byte> bytes;
};

Result<std::vector<file::Recipient>, Problem> recipientsOf(const Arguments& arguments, const Config& config) {
  std::vector<file::Recipient> recipients;
  for (const auto& name : arguments.all("--to")) {
    const auto key = peerNamed(config, name);
    if (!key) return refuse(key.error());
    const bool again = std::ranges::any_of(recipients, [&](const auto& other) { return other.key == *key; });
    if (again) return refuse(Problem{"the recipient `" + name + "` is named twice", ""});
    recipients.push_back({*key, {}, {}});
  }
  if (recipients.size() > file::MAX_RECIPIENTS) {
    return refuse(Problem{std::to_string(recipients.size()) + " recipients are too many",
                          "at most " + std::to_string(file::MAX_RECIPIENTS)});
  }
  return recipients;
}

Result<void, std::string> sealBlocks(InputFile& input, OutputFile& output, file::BoxSealer& sealer, size_t recipients) {
  TextBuffer buffer(file::BLOCK_TEXT_BYTES + 1);
  BlockInput blocks(input, buffer.bytes);
  std::vector<std::byte> sealed(file::blockBytes(recipients));
  for (bool last = false; !last;) {
    const auto block = blocks.next();
    if (!block) return refuse(block.error());
    last = block->last;
    const auto made = MutableByteSpan(sealed).first(block->bytes.size() + file::blockOverhead(recipients));
    sealer.seal(block->bytes, last, made);
    if (auto written = output.write(made); !written) return written;
  }
  return output.finish();
}

int openBlocks(InputFile& input, OutputFile& output, file::BoxOpener& opener, size_t recipients, bool textOnly) {
  std::vector<std::byte> buffer(file::blockBytes(recipients) + 1);
  BlockInput blocks(input, buffer);
  TextBuffer text(file::BLOCK_TEXT_BYTES);
  ShownText shown;
  for (bool last = false; !last;) {
    const auto block = blocks.next();
    if (!block) return fail(block.error());
    last = block->last;
    const auto size = opener.open(block->bytes, last, text.bytes);
    if (!size) return fail(input.name() + ": " + std::string(file::describe(size.error())));
    const auto opened = ByteSpan(text.bytes).first(*size);
    if (textOnly && !shown.take(opened)) {
      return fail(input.name() + ": holds more than text, which is not for a terminal",
                  "-o FILE, or `-o -` if the terminal should have it all the same");
    }
    if (auto written = output.write(opened); !written) return fail(written.error());
  }
  if (auto finished = output.finish(); !finished) return fail(finished.error());
  return EXIT_DONE;
}

Result<file::BoxHead, Problem> readHead(InputFile& input) {
  std::vector<std::byte> bytes(file::HEAD_START_BYTES);
  const auto started = input.read(bytes);
  if (!started) return refuse(Problem{started.error(), ""});
  const auto faulty = [&](file::BoxFault fault) {
    return refuse(Problem{input.name() + ": " + std::string(file::describe(fault)), ""});
  };
  const auto size = file::headSize(ByteSpan(bytes).first(*started));
  if (!size) return faulty(size.error());
  bytes.resize(*size);
  const auto rest = input.read(MutableByteSpan(bytes).subspan(file::HEAD_START_BYTES));
  if (!rest) return refuse(Problem{rest.error(), ""});
  auto head = file::parseHead(ByteSpan(bytes).first(file::HEAD_START_BYTES + *rest));
  if (!head) return faulty(head.error());
  return std::move(*head);
}

// The sender must be the one of --from, else one that has a name, or ourselves. Gives what to call them.
Result<std::string, Problem> checkSender(const Arguments& arguments, const Config& config, const file::BoxHead& head,
                                         const VaultKeyFacts& ours, const std::string& fileName) {
  const auto maker = peerText(config, head.sender);
  if (arguments.has("--from")) {
    const auto wanted = peerNamed(config, arguments.get("--from"));
    if (!wanted) return refuse(wanted.error());
    if (*wanted == head.sender) return maker;
    return refuse(Problem{fileName + ": says that " + maker + " made it, not `" + arguments.get("--from") + "`", ""});
  }
  const auto isSender = [&](const auto& key) { return std::ranges::equal(key, head.sender.span()); };
  if (std::ranges::any_of(ours.opening, isSender)) return "the key `" + arguments.words[0] + "` itself";
  if (maker.starts_with("`")) return maker;
  return refuse(Problem{fileName + ": made by a stranger: " + maker,
                        "`sallyport peer add NAME " + maker + "`, or --from " + maker + ", if you know whose it is"});
}

Result<size_t, Problem> ourPlace(const Config& config, const file::BoxHead& head, const VaultKeyFacts& ours,
                                 const std::string& key, const std::string& fileName) {
  std::string others;
  for (size_t i = 0; i < head.recipients.size(); ++i) {
    const auto& recipient = head.recipients[i].key;
    const auto isRecipient = [&](const auto& each) { return std::ranges::equal(each, recipient.span()); };
    if (std::ranges::any_of(ours.opening, isRecipient)) return i;
    others += (i == 0 ? "" : ", ") + peerText(config, recipient);
  }
  return refuse(Problem{fileName + ": is not boxed to the key `" + key + "`", "it is boxed to " + others});
}

}  // namespace

int boxFile(const Arguments& arguments) {
  if (!arguments.has("--to"))
    return failUsage("to whom? `--to` is missing", "sallyport box " + arguments.words[0] + " --to alice");
  const auto outputPath = arguments.get("--output");
  if (!arguments.has("--armor") && goesToTerminal(outputPath))
    return failUsage("a boxed file is not for a terminal", "--armor for text, -o FILE, or `-o -` if it should be");
  auto command = dataCommand(arguments);
  if (!command) return EXIT_FAILED;
  auto recipients = recipientsOf(arguments, command->config);
  if (!recipients) return failProblem(recipients.error());

  file::BoxHead head;
  head.recipients = std::move(*recipients);
  const auto content = file::ContentKey::random();
  std::vector<file::TagKey> tags;
  for (size_t i = 0; i < head.recipients.size(); ++i) tags.push_back(file::TagKey::random());
  {
    EventLoop loop;
    auto vault = VaultApp::connect(loop, command->socket);
    if (!vault) return failProblem(vault.error());
    if (auto boxed = vault->boxHead(command->key, head, content, tags); !boxed) return failProblem(boxed.error());
  }
  file::BoxSealer sealer(content, head.mac, std::move(tags));
  head.stream = sealer.header();

  auto output = OutputFile::create(outputPath, 0666);
  if (!output) return fail(output.error());
  if (arguments.has("--armor")) output->putOnArmor();
  if (auto written = output->write(file::writeHead(head)); !written) return fail(written.error());
  const auto sealed = sealBlocks(command->input, *output, sealer, head.recipients.size());
  return sealed ? EXIT_DONE : fail(sealed.error());
}

int openFile(const Arguments& arguments) {
  auto command = dataCommand(arguments);
  if (!command) return EXIT_FAILED;
  auto& [config, socket, key, input] = *command;
  if (auto bare = input.takeOffArmor(); !bare) return fail(bare.error());
  const auto head = readHead(input);
  if (!head) return failProblem(head.error());

  std::optional<file::BoxOpener> opener;
  std::string maker;
  {
    EventLoop loop;
    auto vault = VaultApp::connect(loop, socket);
    if (!vault) return failProblem(vault.error());
    const auto ours = vault->facts(key);
    if (!ours) return failProblem(ours.error());
    const auto place = ourPlace(config, *head, *ours, key, input.name());
    if (!place) return failProblem(place.error());
    const auto sender = checkSender(arguments, config, *head, *ours, input.name());
    if (!sender) return failProblem(sender.error());
    maker = *sender;
    auto keys = vault->openHead(key, *head, *place, input.name());
    if (!keys) return failProblem(keys.error());
    opener.emplace(*head, *place, std::move(*keys));
  }
  const auto outputPath = arguments.get("--output");
  // Readable by its owner alone: what was boxed was meant for somebody.
  auto output = OutputFile::create(outputPath, 0600);
  if (!output) return fail(output.error());
  const int done = openBlocks(input, *output, *opener, head->recipients.size(), goesToTerminal(outputPath));
  if (done == EXIT_DONE && !arguments.has("--from")) say("made by " + maker);
  return done;
}

}  // namespace sallyport::cli
