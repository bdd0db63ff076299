// cmd_sign.cc - sallyport sign|verify: detached signatures of files of any size. Part of: cli.
// docs/protocol.md §11. The vault signs; whether a signature is genuine is found here, without any daemon.
#include <algorithm>

#include "cli/commands.h"
#include "cli/data_files.h"
#include "cli/key_access.h"
#include "cli/load_config.h"
#include "cli/terminal.h"
#include "cli/vault_app.h"

namespace sallyport::cli {
namespace {

constexpr size_t READ_BYTES = 256 * 1024;

// What is signed for the whole input.
Result<std::vector<std::byte>, std::string> signedText(InputFile& input) {
  file::FileHash hash;
  std::vector<std::byte> buffer(READ_BYTES);
  for (;;) {
    const auto got = input.read(buffer);
    if (!got) return refuse(got.error());
    hash.add(ByteSpan(buffer).first(*got));
    if (*got < buffer.size()) return hash.signedText();
  }
}

Result<file::SignatureFile, std::string> readSignature(const std::string& path) {
  auto input = InputFile::open(path);
  if (!input) return refuse(input.error());
  std::string text(file::SIGNATURE_FILE_BYTES + 1, '\0');
  const auto got = input->read(std::as_writable_bytes(std::span(text)));
  if (!got) return refuse(got.error());
  const auto signature = file::parseSignature(std::string_view(text).substr(0, *got));
  if (!signature) return refuse(input->name() + ": is not a signature that this program knows");
  return *signature;
}

// The key to believe, and what to call its owner. The error has been printed.
std::optional<std::pair<SigningKey, std::string>> signerOf(const Arguments& arguments) {
  if (arguments.has("--key")) {
    const auto key = parseSigningKey(arguments.get("--key"));
    if (key) return std::pair(*key, "the key " + arguments.get("--key"));
    fail("--key: " + key.error(), "`sallyport key show NAME` on the signer's host prints it");
    return std::nullopt;
  }
  const auto config = loadConfigOrFail(arguments);
  if (!config) return std::nullopt;
  const auto name = arguments.get("--from");
  if (const auto found = config->signers.find(name); found != config->signers.end())
    return std::pair(found->second, "`" + name + "`");
  std::vector<std::string_view> known;
  for (const auto& [signer, key] : config->signers) known.emplace_back(signer);
  const auto guess = nearest(name, known);
  fail("no signer `" + name + "` in [signers] of " + config->file.string(),
       guess.empty() ? "name the key itself: --key KEY" : "did you mean `" + std::string(guess) + "`?");
  return std::nullopt;
}

}  // namespace

int signFile(const Arguments& arguments) {
  auto command = dataCommand(arguments);
  if (!command) return EXIT_FAILED;
  const auto& name = command->key;
  const auto text = signedText(command->input);
  if (!text) return fail(text.error());

  EventLoop loop;
  auto vault = VaultApp::connect(loop, command->socket);
  if (!vault) return failProblem(vault.error());
  const auto made = vault->sign(name, *text);
  if (!made) return failProblem(made.error());
  const auto facts = vault->facts(name);
  if (!facts) return failProblem(facts.error());
  // Also finds a key that changed its version in between, and a vault that computes wrongly.
  const file::SignatureFile signature{SigningKey(facts->active), made->signature};
  if (facts->version != made->version || !file::isGenuine(signature.key, *text, signature.signature))
    return fail("the vault's signature doesn't verify under its own key `" + name + "`", "try again: was it rotated?");

  auto output = OutputFile::create(arguments.get("--output"), 0666);
  if (!output) return fail(output.error());
  if (auto written = output->write(asBytes(file::writeSignature(signature))); !written) return fail(written.error());
  const auto finished = output->finish();
  return finished ? EXIT_DONE : fail(finished.error());
}

int verifyFile(const Arguments& arguments) {
  if (arguments.has("--from") == arguments.has("--key"))
    return failUsage("whose signature? one of `--from` and `--key`", "sallyport verify --from release FILE.sig FILE");
  const auto& signaturePath = arguments.words[0];
  const std::string path = arguments.words.size() > 1 ? arguments.words[1] : "-";
  if (signaturePath == "-" && path == "-")
    return failUsage("the signature and the file can't both be standard input", "name one of them");
  const auto signer = signerOf(arguments);
  if (!signer) return EXIT_FAILED;
  const auto signature = readSignature(signaturePath);
  if (!signature) return fail(signature.error());
  const auto& [key, owner] = *signer;
  if (signature->key != key)
    return fail(signaturePath + ": is by another key, " + toBase64(signature->key.span()) + ", not by " + owner);
  auto input = InputFile::open(path);
  if (!input) return fail(input.error());
  const auto text = signedText(*input);
  if (!text) return fail(text.error());
  if (!file::isGenuine(key, *text, signature->signature))
    return fail(input->name() + ": is not what " + owner + " signed in " + signaturePath);
  say("genuine: signed by " + owner);
  return EXIT_DONE;
}

}  // namespace sallyport::cli
