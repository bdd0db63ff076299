// audit_files.h - the audit log as the CLI reads it: from the vault's folder, or from exported files. Part of: cli.
// Opens for reading alone; what the lines are worth, vaultd/audit_record.h says.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "vaultd/audit_record.h"

namespace sallyport::cli {

// One file that holds something.
struct AuditSource {
  std::string name;
  std::string text;
  vaultd::AuditHeader header;
};

// In the order of their records. The error is a sentence for people, with the file and the line.
using AuditSources = Result<std::vector<AuditSource>, std::string>;
// All `N.log` of a folder. With `files`, so many must be there.
AuditSources readAuditFolder(const std::filesystem::path& folder, std::optional<unsigned> files);
AuditSources readAuditExports(const std::vector<std::string>& paths);

struct AuditSummary {
  uint64_t first = 0;  // number of the first record; 0: there is none
  vaultd::AuditHead head;
  std::string torn;  // the file whose last line is not whole; empty: none
};

// Holds every line against the chain, and against the macs where there is a key. `visit(record, line)`, in order.
using AuditVisitor = std::function<void(const vaultd::AuditRecord&, std::string_view line)>;
Result<AuditSummary, std::string> checkAudit(const std::vector<AuditSource>& sources,
                                             std::optional<vaultd::AuditKey> firstKey, const AuditVisitor& visit);

// Reads on in a folder that a vault writes to.
class AuditFollower {
 public:
  explicit AuditFollower(std::filesystem::path folder, uint64_t after) : folder_(std::move(folder)), last_(after) {}
  // The whole lines that have come since.
  std::vector<vaultd::AuditRecord> poll();

 private:
  std::filesystem::path folder_;
  uint64_t last_;  // the last record given out
  std::filesystem::path file_;
  uint64_t begins_ = 0;  // with this record
  size_t offset_ = 0;
};

}  // namespace sallyport::cli
