import { limitPhrases } from "../model/rule-text.js";
import type { NamedRules } from "../model/rules.js";
import type { Setting, SettingGroup, SettingPart } from "../model/settings.js";
import type { Spec, SpecFile } from "../model/spec.js";
import { code, markdownTable, prose, section } from "../print.js";

/** Parts of the settings page, in its order. */
const parts: readonly { readonly part: SettingPart; readonly title: string; readonly about: string }[] = [
  { part: "public", title: "Public settings", about: "A later version changes these as semantic versioning says." },
  {
    part: "tuning",
    title: "Tuning settings",
    about:
      "No promise: any version may rename one of these, change its default or remove it. The defaults suit almost everybody;  " +
      "measure before and after a change.",
  },
  {
    part: "database",
    title: "Settings of the database",
    about:
      "A row of the database has the value, which all programs of the database read. No option of a program sets it.",
  },
];

/** Settings that users can set, in three parts, and the limits that they meet. */
export function settingsOfUsers(files: readonly SpecFile[], namedRules: Spec["namedRules"]): string[] {
  const groups = files.flatMap(({ settingGroups }) => settingGroups);
  return [...parts.flatMap((part) => partSection(part, groups)), ...limitsSection(groups, namedRules)];
}

function partSection({ part, title, about }: (typeof parts)[number], groups: readonly SettingGroup[]): string[] {
  const sections = groups.flatMap((group) => {
    const settings = group.fixed ? [] : group.settings.filter((setting) => setting.part === part);
    return settings.length === 0 ? [] : [groupSection(group, settings, "###")];
  });
  return sections.length === 0 ? [] : [`## ${title}\n`, `${prose(about)}\n`, ...sections];
}

/** Constants of a file. */
export function constantsSections(file: SpecFile): string {
  return file.settingGroups
    .filter(({ fixed }) => fixed)
    .map((group) => groupSection(group, group.settings, "##"))
    .join("\n");
}

function groupSection(group: SettingGroup, settings: readonly Setting[], level: "##" | "###"): string {
  const rows = settings.map((setting) => [
    code(setting.name),
    valueText(setting),
    prose(setting.unit),
    ...(group.fixed ? [] : [limitPhrases(setting.rules, setting.kind).join("; ")]),
    prose(setting.comment),
  ]);
  const head = group.fixed ? ["Name", "Value", "Unit", "Meaning"] : ["Name", "Default", "Unit", "Range", "Meaning"];
  return section(`${level} ${group.title}`, group.comment, markdownTable(head, rows));
}

function valueText(setting: Setting): string {
  return setting.default === undefined ? "none" : code(JSON.stringify(setting.default));
}

function limitsSection(groups: readonly SettingGroup[], namedRules: readonly NamedRules[]): string[] {
  const rows = [
    ...namedRules.map(({ limit, rules, about }) => [
      limit,
      limitPhrases(rules, kindOf(rules)).join("; "),
      prose(about),
    ]),
    ...groups
      .flatMap(({ settings }) => settings)
      .map((setting) => [setting.limit, `${valueText(setting)} ${setting.unit}`, prose(setting.comment)]),
  ].filter(([limit]) => limit !== "");
  if (rows.length === 0) return [];
  const about =
    "Limits are the same for everyone. A value beyond a limit is refused with an error that names the limit.";
  return ["## Limits\n", `${about}\n`, markdownTable(["Of", "Limit", "Meaning"], rows)];
}

/** Kind of named rules. Headers are the only named rules whose limits read differently. */
function kindOf({ maxNameBytes }: NamedRules["rules"]): "json" | "bytes" {
  return maxNameBytes === undefined ? "bytes" : "json";
}
