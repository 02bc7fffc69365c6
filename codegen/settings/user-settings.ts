import { lowerFirst } from "../model/names.js";
import type { Setting, SettingGroup } from "../model/settings.js";
import { docstring, stringLiteral } from "../print.js";
import { printCheck } from "../validators/check-function.js";
import { checkedSetting } from "../validators/checked-value.js";
import { settingDoc, valueLiteral } from "./values.js";

/** A group that users set: its type, defaults, ranges, and the check that fills in the defaults. */
export function userSettings(group: SettingGroup): string {
  const type = group.message.name;
  const name = lowerFirst(type);
  return [
    settingsInterface(group, type),
    `${docstring(`${group.title} as a user gives them: what is left out, or undefined, has its default.`)}export type ${type}Input = { readonly [Name in keyof ${type}]?: ${type}[Name] | undefined };\n`,
    defaultsObject(group, type, name),
    rangesObject(group, name),
    ...group.settings.map((setting) => printCheck(checkedSetting(setting))),
    checkFunction(group, type, name),
  ].join("\n");
}

function settingsInterface(group: SettingGroup, type: string): string {
  const lines = group.settings.map((setting) => {
    const orNothing = setting.default === undefined ? " | undefined" : "";
    return `${settingDoc(setting, "Default")}  readonly ${setting.name}: ${setting.kind}${orNothing};\n`;
  });
  return `${docstring(`${group.title}. ${group.comment}`.trim())}export interface ${type} {\n${lines.join("")}}\n`;
}

function defaultsObject(group: SettingGroup, type: string, name: string): string {
  const lines = group.settings.map((setting) => {
    const value = setting.default === undefined ? "undefined" : valueLiteral(setting.default);
    return `  ${setting.name}: ${value},\n`;
  });
  return `${docstring("The defaults.")}export const ${name}Defaults: ${type} = {\n${lines.join("")}};\n`;
}

function rangesObject(group: SettingGroup, name: string): string {
  const lines = group.settings.map((setting) => `  ${setting.name}: ${rangeLiteral(setting)},\n`);
  return `${docstring("What each setting may be, and in which unit.")}export const ${name}Ranges = {\n${lines.join("")}} as const;\n`;
}

function rangeLiteral({ kind, unit, rules }: Setting): string {
  const entries = [
    `kind: ${stringLiteral(kind)}`,
    ...(rules.min === undefined ? [] : [`min: ${rules.min}`]),
    ...(rules.max === undefined ? [] : [`max: ${rules.max}`]),
    ...(rules.maxBytes === undefined ? [] : [`maxBytes: ${rules.maxBytes}`]),
    ...(rules.in === undefined ? [] : [`values: [${rules.in.map(stringLiteral).join(", ")}]`]),
    ...(unit === "" ? [] : [`unit: ${stringLiteral(unit)}`]),
  ];
  return `{ ${entries.join(", ")} }`;
}

function checkFunction(group: SettingGroup, type: string, name: string): string {
  const resolved = group.settings.map(
    (setting) => `    ${setting.name}: input.${setting.name} ?? ${name}Defaults.${setting.name},\n`,
  );
  const steps = group.settings.map((setting) => {
    const value = `settings.${setting.name}`;
    const call = `${checkedSetting(setting).functionName}(${value})`;
    return setting.default === undefined ? `(${value} === undefined ? undefined : ${call})` : call;
  });
  const doc =
    "Fills in the defaults and checks every setting; the first that breaks its rule is told. Other properties are ignored.";
  return [
    `${docstring(`The outcome of \`check${type}\`.`)}export type Checked${type} =\n  | { readonly ok: true; readonly settings: ${type} }\n  | { readonly ok: false; readonly violation: Violation };\n`,
    `${docstring(doc)}export function check${type}(input: ${type}Input): Checked${type} {`,
    `  const settings: ${type} = {\n${resolved.join("")}  };`,
    `  const violation =\n    ${steps.join(" ??\n    ")};`,
    "  return violation === undefined ? { ok: true, settings } : { ok: false, violation };",
    "}",
    "",
  ].join("\n");
}
