import { lowerFirst } from "../model/names.js";
import { limitPhrases } from "../model/rule-text.js";
import type { Setting, SettingGroup, SettingValue } from "../model/settings.js";
import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, fileOfEachArea, stringLiteral, typescriptHead } from "../print.js";
import { ruleImports, textEntries } from "../validators/checks.js";

/** Generates `<area>.ts` for each package with settings: types, defaults, ranges, checks, and objects of constants. */
export function generateSettings(spec: Spec): GeneratedFile[] {
  return fileOfEachArea(spec, (file) => file.settingGroups.length > 0, settingsModule);
}

function settingsModule(sources: readonly SpecFile[]): string {
  const groups = sources.flatMap((file) => file.settingGroups);
  const body = groups.map((group) => (group.fixed ? constantsObject(group) : userSettings(group)));
  const imports = [ruleImports(body, "../rules")];
  return [typescriptHead("codegen/settings", sources), ...imports, ...body].join("\n");
}

/** Prints a group that users set: its type, defaults, ranges, and the check that fills in the defaults. */
function userSettings(group: SettingGroup): string {
  const type = group.message.name;
  const name = lowerFirst(type);
  return [
    settingsInterface(group, type),
    `${docstring(`${group.title} as a user gives them: a setting that is absent or undefined has its default.`)}export type ${type}Input = { readonly [Name in keyof ${type}]?: ${type}[Name] | undefined };\n`,
    defaultsObject(group, type, name),
    rulesObject(group, type, name),
    checkFunction(type, name),
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
  return `export const ${name}Defaults: ${type} = {\n${lines.join("")}};\n`;
}

function rulesObject(group: SettingGroup, type: string, name: string): string {
  const lines = group.settings.map((setting) => `  ${setting.name}: { ${ruleEntries(setting).join(", ")} },\n`);
  return `${docstring("Kind, limits, unit and meaning of each setting.")}export const ${name}Ranges = {\n${lines.join("")}} as const satisfies Readonly<Record<keyof ${type}, SettingRules>>;\n`;
}

function ruleEntries({ kind, unit, rules, comment, part }: Setting): string[] {
  return [
    `kind: ${stringLiteral(kind)}`,
    ...(rules.min === undefined ? [] : [`min: ${rules.min}`]),
    ...(rules.max === undefined ? [] : [`max: ${rules.max}`]),
    ...[textEntries(rules)].filter((text) => text !== ""),
    ...(unit === "" ? [] : [`unit: ${stringLiteral(unit)}`]),
    ...(part === "tuning" ? ["isTuning: true"] : []),
    `about: ${stringLiteral(comment.replaceAll(/\s+/g, " "))}`,
  ];
}

function checkFunction(type: string, name: string): string {
  const doc =
    "Fills in the defaults and checks every setting. Returns the first violation. Other properties are ignored.";
  return [
    `${docstring(doc)}export function check${type}(input: ${type}Input): CheckedSettings<${type}> {`,
    `  return checkSettings<${type}>(${name}Defaults, ${name}Ranges, input);`,
    "}",
    "",
  ].join("\n");
}

/** Prints a fixed group as one object of constants. */
function constantsObject(group: SettingGroup): string {
  const name = lowerFirst(group.message.name);
  const lines = group.settings.map(
    (setting) => `${settingDoc(setting, "Value")}  ${setting.name}: ${valueLiteral(setting.default!)},\n`,
  );
  return `${docstring(`${group.title}. ${group.comment}`.trim())}export const ${name} = {\n${lines.join("")}} as const;\n`;
}

/** Docstring of a setting: its line on the reference page. */
function settingDoc(setting: Setting, word: "Default" | "Value"): string {
  const unit = setting.unit === "" ? "" : ` ${setting.unit}`;
  const facts = [
    ...(setting.default === undefined ? ["No default."] : [`${word}: ${valueText(setting.default)}${unit}.`]),
    ...limitPhrases(setting.rules, setting.kind).map((phrase) => `Range: ${phrase}.`),
    ...(setting.part === "tuning" ? ["Tuning: any version may rename it, change its default or remove it."] : []),
  ];
  return docstring(`${setting.comment}\n\n${facts.join(" ")}`.trim(), "  ");
}

function valueLiteral(value: SettingValue): string {
  return typeof value === "string" ? stringLiteral(value) : String(value);
}

function valueText(value: SettingValue): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
