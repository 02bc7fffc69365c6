import { lowerFirst } from "../model/names.js";
import { limitPhrases } from "../model/rule-text.js";
import type { Setting, SettingGroup, SettingValue } from "../model/settings.js";
import { docstring, stringLiteral } from "../print.js";

/** A group that is fixed, as one object of constants. */
export function constantsObject(group: SettingGroup): string {
  const lines = group.settings.map(
    (setting) => `${settingDoc(setting, "Value")}  ${setting.name}: ${valueLiteral(setting.default!)},\n`,
  );
  return `${docstring(`${group.title}. ${group.comment}`.trim())}export const ${lowerFirst(group.message.name)} = {\n${lines.join("")}} as const;\n`;
}

/** What the reference page says of a setting, as a docstring. */
export function settingDoc(setting: Setting, word: "Default" | "Value"): string {
  const unit = setting.unit === "" ? "" : ` ${setting.unit}`;
  const facts = [
    ...(setting.default === undefined ? ["No default."] : [`${word}: ${valueText(setting.default)}${unit}.`]),
    ...limitPhrases(setting.rules, setting.kind).map((phrase) => `Range: ${phrase}.`),
  ];
  return docstring(`${setting.comment}\n\n${facts.join(" ")}`.trim(), "  ");
}

export function valueLiteral(value: SettingValue): string {
  return typeof value === "string" ? stringLiteral(value) : String(value);
}

function valueText(value: SettingValue): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
