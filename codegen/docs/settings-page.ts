import { limitPhrases } from "../model/rule-text.js";
import type { Setting, SettingGroup } from "../model/settings.js";
import type { SpecFile } from "../model/spec.js";
import { code, markdownTable, prose } from "../print.js";

/** The groups of one file that users may set, with defaults, units and ranges; or those that are fixed. */
export function settingsSections(file: SpecFile, which: "of users" | "fixed"): string {
  return file.settingGroups
    .filter(({ fixed }) => fixed === (which === "fixed"))
    .map(groupSection)
    .join("\n");
}

function groupSection(group: SettingGroup): string {
  const rows = group.settings.map((setting) => [
    code(setting.name),
    valueText(setting),
    prose(setting.unit),
    ...(group.fixed ? [] : [limitPhrases(setting.rules, setting.kind).join("; ")]),
    prose(setting.comment),
  ]);
  const head = group.fixed ? ["Name", "Value", "Unit", "Meaning"] : ["Name", "Default", "Unit", "Range", "Meaning"];
  return [`## ${group.title}\n`, `${prose(group.comment)}\n`, markdownTable(head, rows)].join("\n");
}

function valueText(setting: Setting): string {
  return setting.default === undefined ? "none" : code(JSON.stringify(setting.default));
}
