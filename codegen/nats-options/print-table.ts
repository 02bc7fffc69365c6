import { patternLiteral, stringLiteral } from "../typescript.js";
import { type Check, listChecks } from "./checks.js";
import { booleanPattern, farNumber, integerPattern, maxDigits, maxShownLength, maxSuggestedLength } from "./grammar.js";
import { isHidden, type Option, type OptionsModel } from "./model.js";

/** What the schema says, as the data that `checkOptions` works from. */
export function printTable(model: OptionsModel): string {
  return `
import type { OptionTable } from "./check.js";

/** The options and everything that can be wrong with them. */
export const table: OptionTable = {
  options: [
${model.options.map(printOption).join("\n")}
  ],
  checks: [
${listChecks(model).map(printCheck).join("\n")}
  ],
  grammar: {
    integer: ${patternLiteral(integerPattern)},
    true: ${patternLiteral(booleanPattern(true))},
    false: ${patternLiteral(booleanPattern(false))},
    farNumber: ${farNumber},
    maxDigits: ${maxDigits},
  },
  sqlstates: { unknown: "${model.sqlstates.unknown}", value: "${model.sqlstates.value}" },
  maxSuggestedLength: ${maxSuggestedLength},
  maxShownLength: ${maxShownLength},
};
`;
}

function printOption(option: Option): string {
  const fallback = option.default === undefined ? "" : ` default: ${literal(option.default)},`;
  return `    { name: "${option.name}", type: "${option.type}",${fallback} hidden: ${isHidden(option)} },`;
}

function printCheck(check: Check): string {
  const about = check.kind === "rule" ? [`about: [${check.rule.about.map(stringLiteral).join(", ")}],`] : [];
  const lines = [
    `at: ${stringLiteral(check.at)},`,
    `option: "${check.option}",`,
    `sqlstate: "${check.sqlstate}",`,
    `message: ${stringLiteral(check.message)},`,
    `hint: ${stringLiteral(check.hint)},`,
    ...about,
  ];
  return `    {\n${lines.map((line) => `      ${line}\n`).join("")}    },`;
}

function literal(value: string | number | boolean): string {
  return typeof value === "string" ? stringLiteral(value) : String(value);
}
