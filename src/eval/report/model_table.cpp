#include "eval/report/model_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "html/page.h"

namespace mambify {

std::string value_cell(const JsonReader& reader, const std::string& key, int digits) {
  const auto value = reader.find<double>(key);
  if (!value) return "";
  std::string cell = fmt::format("{:.{}f}", *value, digits);
  if (const auto error = reader.find<double>(key + "_stderr")) {
    cell += fmt::format(" <span class=\"error\">± {:.{}f}</span>", *error, digits);
  }
  return cell;
}

void ModelTable::set(const std::string& row, const std::string& column, const std::string& cell) {
  if (cell.empty()) return;
  if (std::ranges::count(columns_, column) == 0) columns_.push_back(column);
  std::vector<std::string>& cells = rows_[row][column];
  if (std::ranges::count(cells, cell) == 0) cells.push_back(cell);
}

std::string ModelTable::html(const ModelNames& names) const {
  if (columns_.empty()) return "";
  std::string text = "<div class=\"scroll\"><table>\n<tr><th>model</th>";
  for (const std::string& column : columns_) text += "<th>" + escaped(column) + "</th>";
  text += "</tr>\n";
  const auto add_row = [&](const std::string& title, const std::string& row) {
    text += "<tr><td>" + title + "</td>";
    for (const std::string& column : columns_) {
      const auto found = rows_.at(row).find(column);
      text += "<td>";
      if (found != rows_.at(row).end()) {
        text += fmt::format("{}", fmt::join(found->second, "<br>"));
      }
      text += "</td>";
    }
    text += "</tr>\n";
  };
  for (const std::string& path : names.paths()) {
    if (!rows_.contains(path)) continue;
    add_row(fmt::format("<span title=\"{}\">{}</span>{}", escaped(path), escaped(names.of(path)),
                        names.is_teacher(path) ? " (teacher)" : ""),
            path);
  }
  for (const auto& [row, cells] : rows_) {
    if (std::ranges::count(names.paths(), row) == 0) add_row(escaped(row), row);
  }
  return text + "</table></div>\n";
}

}  // namespace mambify
