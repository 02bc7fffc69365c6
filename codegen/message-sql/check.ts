/** Functions `check_…`: check the `buf.validate` rules of a message and of the messages in it. */
import { type DescField, ScalarType } from "@bufbuild/protobuf";
import {
  type FieldRules,
  type Rule,
  type RuleValue,
  requirementOf,
  rulesOf,
  type ValueRules,
} from "../../src/protobuf/typed/index.js";
import { sqlString } from "../sql/literal.js";
import { type MadeFunction, madeFunction, pure } from "./helpers.js";
import { entryFields, type FieldModel, fieldType, type MessageModel, qualified, type ValueKind } from "./model.js";
import { bytesLiteral, indented } from "./names.js";
import type { SqlOptions } from "./options.js";
import { helperName, isNotZero } from "./values.js";

/**
 * `check_order_placed(message order_placed, path text)`: refuses a row that breaks a rule, with the field and the rule.
 */
export function checkFunction(options: SqlOptions, message: MessageModel): MadeFunction {
  const type = qualified(options, message.name);
  const { checks, variables } = new MessageChecks(options, message).print();
  return madeFunction({
    options,
    name: `check_${message.name}`,
    parameters: [`message ${type}`, `path text DEFAULT ${sqlString(message.desc.typeName)}`],
    types: [type, "text"],
    returns: "void",
    properties: `${pure} STRICT`,
    body: `AS $function$\n#variable_conflict use_column\nDECLARE\n  v_n bigint;\n${variables}BEGIN\n${checks || "  NULL;\n"}END\n$function$`,
    comment: `Refuses a ${message.desc.typeName} that breaks a rule.`,
  });
}

/** True if the check of a message can refuse anything. */
export function hasChecks(options: SqlOptions, message: MessageModel): boolean {
  return new MessageChecks(options, message).print().checks !== "";
}

class MessageChecks {
  readonly #options: SqlOptions;

  readonly #message: MessageModel;

  /** Fields whose elements are checked one by one. */
  readonly #elements: FieldModel[] = [];

  constructor(options: SqlOptions, message: MessageModel) {
    this.#options = options;
    this.#message = message;
  }

  /** Statements, and the declarations of their variables. */
  print(): { readonly checks: string; readonly variables: string } {
    const checks = this.#all();
    const variables = this.#elements.map((field) => {
      const type = fieldType(this.#options, field).slice(0, -"[]".length);
      return `  ${elementName(field)} ${type};\n`;
    });
    return { checks, variables: variables.join("") };
  }

  #all(): string {
    const { fields, requiredOneofs, exclusiveFields } = rulesOf(this.#message.desc);
    const ofFields = fields.map((rules) => this.#fieldChecks(rules));
    const ofOneofs = requiredOneofs.map((oneof) => {
      const columns = oneof.fields.map((field) => `message.${this.#model(field).column}`);
      const requirement = `one of ${oneof.fields.map(({ name }) => name).join(", ")} must be set`;
      return this.#refuseUnless(`num_nonnulls(${columns.join(", ")}) > 0`, [`.${oneof.name}`], requirement, "required");
    });
    const ofGroups = exclusiveFields.map(({ fields: group, required }) => {
      const count = group.map((field) => `(${this.#isSet(this.#model(field))})::integer`).join(" + ");
      const requirement = `${required ? "one" : "at most one"} of ${group.map(({ name }) => name).join(", ")} must be set`;
      return this.#refuseUnless(`${count} ${required ? "=" : "<="} 1`, [], requirement, "message.oneof");
    });
    return [...ofFields, ...ofOneofs, ...ofGroups].join("");
  }

  #model(desc: DescField): FieldModel {
    return this.#message.fields.find((field) => field.desc === desc)!;
  }

  #fieldChecks(rules: FieldRules): string {
    if (rules.ignore === "always") return "";
    const field = this.#model(rules.field);
    const x = `message.${field.column}`;
    const at = [`.${field.desc.name}`];
    const required = rules.required ? this.#refuseUnless(this.#isSet(field), at, "must be set", "required") : "";
    if (rules.shape === "single") {
      // Where NULL and zero are the same, an absent value counts as zero.
      const isImplicit = field.shape === "single" && field.presence === "implicit";
      const value = isImplicit ? `coalesce(${x}, ${zeroFor(field.value)})` : x;
      const checks = this.#valueChecks(rules.value, field.value, value, at, isImplicit ? 2 : 4);
      if (checks === "") return required;
      if (isImplicit && rules.ignore === "unspecified") return required + checks;
      const condition = isImplicit ? this.#isNotZero(field, x) : this.#isSet(field);
      return `${required}  IF ${condition} THEN\n${isImplicit ? indentedLines(checks) : checks}  END IF;\n`;
    }
    const isMap = rules.shape === "map";
    const count = `coalesce(cardinality(${x}), 0)`;
    const [least, most] = isMap ? [rules.minPairs, rules.maxPairs] : [rules.minItems, rules.maxItems];
    const [what, kind] = isMap ? ["pairs", "map"] : ["items", "repeated"];
    const refuse = (holds: string, requirement: string, id: string): string =>
      this.#refuseUnless(holds, at, requirement, `${kind}.${id}`);
    const distinct = `(SELECT count(DISTINCT e.value) FROM unnest(${x}) AS e (value)) = ${count}`;
    const counts = [
      least === undefined ? "" : refuse(`${count} >= ${least}`, `must have at least ${least} ${what}`, `min_${what}`),
      most === undefined ? "" : refuse(`${count} <= ${most}`, `must have at most ${most} ${what}`, `max_${what}`),
      rules.shape === "list" && rules.unique ? refuse(distinct, "must have no element twice", "unique") : "",
    ].join("");
    const elements = rules.shape === "map" ? this.#entryChecks(rules, field) : this.#itemChecks(rules, field);
    const all = counts + elements;
    const guarded =
      rules.ignore === "ifZero" && all !== "" ? `  IF ${count} > 0 THEN\n${indentedLines(all)}  END IF;\n` : all;
    return required + guarded;
  }

  #itemChecks(rules: Extract<FieldRules, { shape: "list" }>, field: FieldModel): string {
    const item = elementName(field);
    const checks = this.#elementChecks(rules.items, field.value, item, [`.${field.desc.name}[`, "(v_n - 1)", "]"]);
    return checks === "" ? "" : this.#forEach(field, checks);
  }

  #entryChecks(rules: Extract<FieldRules, { shape: "map" }>, field: FieldModel): string {
    if (field.shape !== "map") return "";
    const [key, value] = entryFields(field);
    const entry = elementName(field);
    const keyText = field.key === ScalarType.STRING ? `to_json(${entry}.key)` : `${entry}.key`;
    const at = [`.${field.desc.name}[`, keyText, "]"];
    const part = (model: FieldModel, column: string): string => `coalesce(${entry}.${column}, ${zeroFor(model.value)})`;
    const checks =
      this.#elementChecks(rules.keys, key!.value, part(key!, "key"), at) +
      this.#elementChecks(rules.values, value!.value, part(value!, "value"), at);
    return checks === "" ? "" : this.#forEach(field, checks);
  }

  #elementChecks(rules: ValueRules, value: ValueKind, x: string, at: readonly string[]): string {
    if (rules.ignore === "always") return "";
    const checks = this.#valueChecks(rules, value, x, at, rules.ignore === "ifZero" ? 6 : 4);
    if (checks === "" || rules.ignore === "unspecified") return checks;
    return `    IF ${isNotZeroValue(this.#options, value, x)} THEN\n${checks}    END IF;\n`;
  }

  /** Iterates with FOREACH: a subscript would scan all elements before it. */
  #forEach(field: FieldModel, checks: string): string {
    this.#elements.push(field);
    const loop = `FOREACH ${elementName(field)} IN ARRAY coalesce(message.${field.column}, '{}') LOOP`;
    return `  v_n := 0;\n  ${loop}\n    v_n := v_n + 1;\n${checks}  END LOOP;\n`;
  }

  /** Checks of one value that is set. */
  #valueChecks(rules: ValueRules, value: ValueKind, x: string, at: readonly string[], spaces: number): string {
    const own = rules.rules
      .map((rule) => {
        const holds = conditionOf(this.#options, value, rule, x);
        return this.#refuseUnless(holds, at, requirementOf(rule), rule.id, spaces, x, value);
      })
      .join("");
    if (value.kind !== "message" || !hasChecks(this.#options, value.message)) return own;
    const check = `PERFORM ${qualified(this.#options, `check_${value.message.name}`)}(${x}, ${pathOf(at)});`;
    return `${own}${" ".repeat(spaces)}${check}\n`;
  }

  /** @param at parts of the path after the message: texts that begin with "." or "[" or are "]", and expressions */
  #refuseUnless(
    holds: string,
    at: readonly string[],
    requirement: string,
    id: string,
    spaces = 2,
    x?: string,
    value?: ValueKind,
  ): string {
    const shown = x === undefined || value === undefined ? undefined : shownValue(value, x);
    const problem =
      shown === undefined
        ? sqlString(`${requirement} (${id})`)
        : `${sqlString(`${requirement}, and is `)} || ${shown} || ${sqlString(` (${id})`)}`;
    const text = `IF (${holds}) IS NOT TRUE THEN\n  PERFORM ${helperName(this.#options, "refuse")}(${pathOf(at)}, ${problem});\nEND IF;\n`;
    return " ".repeat(spaces) + indented(spaces, text);
  }

  /** Condition that a field has a value; without presence, a value other than zero. */
  #isSet(field: FieldModel): string {
    const x = `message.${field.column}`;
    if (field.shape !== "single") return `coalesce(cardinality(${x}), 0) > 0`;
    if (field.presence !== "implicit") return `${x} IS DISTINCT FROM NULL`;
    return `coalesce(${this.#isNotZero(field, x)}, false)`;
  }

  #isNotZero(field: FieldModel, x: string): string {
    return isNotZeroValue(this.#options, field.value, x);
  }
}

/** Variable of the current element of a list or map. */
function elementName({ number }: FieldModel): string {
  return `v_${number}`;
}

function isNotZeroValue(options: SqlOptions, value: ValueKind, x: string): string {
  return value.kind === "enum" ? `${enumNumber(options, value, x)} <> 0` : isNotZero(value, x);
}

function enumNumber(options: SqlOptions, value: Extract<ValueKind, { kind: "enum" }>, x: string): string {
  return `${qualified(options, `${value.enum.name}_number`)}(${x}, ${sqlString(value.enum.desc.typeName)})`;
}

function zeroFor(value: ValueKind): string {
  if (value.kind === "scalar") {
    if (value.scalar === ScalarType.BYTES) return "''::bytea";
    if (value.scalar === ScalarType.STRING) return "''";
    return value.scalar === ScalarType.BOOL ? "false" : "0";
  }
  return value.kind === "enum" ? "'0'" : "NULL";
}

function pathOf(at: readonly string[]): string {
  return ["path", ...at.map((part) => (/^[.[\]]/.test(part) ? sqlString(part) : part))].join(" || ");
}

function indentedLines(text: string): string {
  return text.replaceAll(/^(?=.)/gm, "  ");
}

/** Value in an error: short, and without bytes. */
function shownValue(value: ValueKind, x: string): string | undefined {
  const scalar = value.kind === "scalar" || value.kind === "wrapper" ? value.scalar : undefined;
  if (scalar === ScalarType.BYTES) return `octet_length(${x}) || ' bytes'`;
  if (scalar === ScalarType.STRING) return `to_json(left(${x}, 60))`;
  if (scalar !== undefined || value.kind === "enum") return `(${x})::text`;
  return value.kind === "message" ? undefined : `(${x})::text`;
}

/** Condition of a rule. */
function conditionOf(options: SqlOptions, value: ValueKind, rule: Rule, x: string): string {
  const scalar = value.kind === "scalar" || value.kind === "wrapper" ? value.scalar : undefined;
  const isBytes = scalar === ScalarType.BYTES;
  const isFloat = scalar === ScalarType.FLOAT || scalar === ScalarType.DOUBLE;
  /** Expression that is compared with the values of rules. */
  const compared =
    value.kind === "enum"
      ? enumNumber(options, value, x)
      : scalar === ScalarType.FLOAT
        ? `(${x})::double precision`
        : value.kind === "timestamp" || value.kind === "duration"
          ? `extract(epoch FROM ${x}) * 1000000000`
          : x;
  const list = (values: readonly RuleValue[]): string => values.map((each) => literal(each, isFloat)).join(", ");
  switch (rule.kind) {
    case "const":
      return `${compared} = ${literal(rule.value, isFloat)}`;
    case "in":
      return `${compared} IN (${list(rule.values)})`;
    case "notIn":
      return `${compared} NOT IN (${list(rule.values)})`;
    case "range": {
      const { lower, upper, outside } = rule;
      const conditions = [
        ...(lower === undefined ? [] : [`${compared} >${lower.inclusive ? "=" : ""} ${literal(lower.value, isFloat)}`]),
        ...(upper === undefined ? [] : [`${compared} <${upper.inclusive ? "=" : ""} ${literal(upper.value, isFloat)}`]),
      ];
      // Postgres sorts NaN above all numbers; rules exclude NaN from every range.
      const notNan = isFloat ? ` AND ${compared} <> 'NaN'` : "";
      return `(${conditions.join(outside ? " OR " : " AND ")})${notNan}`;
    }
    case "finite":
      return `${compared} NOT IN ('NaN', 'Infinity', '-Infinity')`;
    case "length": {
      const length = rule.unit === "bytes" ? `octet_length(${x})` : `char_length(${x})`;
      return `${length} ${{ exactly: "=", atLeast: ">=", atMost: "<=" }[rule.limit]} ${rule.value}`;
    }
    case "pattern":
      return `${x} ~ ${sqlString(rule.pattern)}`;
    case "format":
      return [
        `${x} ~ ${sqlString(rule.pattern)}`,
        ...(rule.butNot === undefined ? [] : [`${x} !~ ${sqlString(rule.butNot)}`]),
        ...(rule.maxLength === undefined ? [] : [`char_length(${x}) <= ${rule.maxLength}`]),
      ].join(" AND ");
    case "prefix":
    case "suffix":
    case "contains":
    case "notContains": {
      const part = literal(rule.value, false);
      const length = typeof rule.value === "string" ? [...rule.value].length : rule.value.length;
      return {
        prefix: isBytes ? `substr(${x}, 1, ${length}) = ${part}` : `starts_with(${x}, ${part})`,
        suffix: isBytes
          ? `octet_length(${x}) >= ${length} AND substr(${x}, octet_length(${x}) - ${length - 1}) = ${part}`
          : length === 0
            ? "true"
            : `right(${x}, ${length}) = ${part}`,
        contains: `position(${part} IN ${x}) > 0`,
        notContains: `position(${part} IN ${x}) = 0`,
      }[rule.kind];
    }
    case "definedOnly":
      return `${compared} IN (${rule.numbers.join(", ")})`;
  }
}

/** Value of a rule as an SQL constant. */
function literal(value: RuleValue, isFloat: boolean): string {
  if (typeof value === "string") return `${sqlString(value)}::text`;
  if (value instanceof Uint8Array) return bytesLiteral(value);
  if (typeof value === "boolean") return String(value);
  return isFloat
    ? `'${Object.is(value, -0) ? "-0" : value}'::double precision`
    : value < 0
      ? `(${value})`
      : String(value);
}
