import { type Column, typeName } from "../model/columns.js";
import { sqlIdentifier } from "../model/names.js";
import { insertableColumns, inTableSchema, relationsOf, type Table } from "../model/tables.js";
import { type Constraint, columnChecks } from "./checks.js";
import { sqlString } from "./literal.js";

/** Statements that create a table with its indexes, comments and first rows. */
export function tableStatements(table: Table): string {
  return [
    createTable(table),
    ...table.columns
      .filter(({ uncompressed }) => uncompressed)
      .map(({ name }) => `ALTER TABLE ${inTableSchema(table)} ALTER COLUMN ${name} SET STORAGE EXTERNAL;\n`),
    ...table.indexes.map((index) => {
      const where = index.where === undefined ? "" : ` WHERE ${index.where}`;
      return `CREATE INDEX ${index.name} ON ${inTableSchema(table)} (${index.columns.join(", ")})${where};\n`;
    }),
    tableComments(table),
    ...table.rows.map((row) => {
      const names = insertableColumns(table).map((column) => column.name);
      return `INSERT INTO ${inTableSchema(table)} (${names.join(", ")})\nVALUES (${row.join(", ")});\n`;
    }),
  ]
    .filter((statement) => statement !== "")
    .join("\n");
}

/** Constraints of a table; their names depend on table, columns and rule alone. */
function tableConstraints(table: Table): Constraint[] {
  const named = (name: string) => sqlIdentifier(table.message, "constraint name", name);
  return [
    { name: named(`${table.name}_pkey`), definition: `PRIMARY KEY (${table.primaryKey.join(", ")})` },
    ...table.unique.map((columns) => ({
      name: named(`${table.name}_${columns.join("_")}_key`),
      definition: `UNIQUE (${columns.join(", ")})`,
    })),
    ...table.columns.flatMap((column) => columnChecks(table, column)),
    ...table.checks.map(({ name, expression }) => ({ name, definition: `CHECK (${expression})` })),
  ];
}

function createTable(table: Table): string {
  const lines = [
    ...table.columns.map(columnLine),
    ...tableConstraints(table).map(({ name, definition }) => `CONSTRAINT ${name} ${definition}`),
  ];
  const [, ...segments] = relationsOf(table);
  const parts = segments.map(
    (name, nth) =>
      `CREATE TABLE ${inTableSchema(table, name)} PARTITION OF ${inTableSchema(table)} FOR VALUES IN (${nth});\n`,
  );
  const by = table.segments === undefined ? "" : ` PARTITION BY LIST (${table.segments.column})`;
  const storage = table.fillfactor === undefined ? "" : ` WITH (fillfactor = ${table.fillfactor})`;
  return `CREATE TABLE ${inTableSchema(table)} (\n${lines.map((line) => `  ${line}`).join(",\n")}\n)${by}${storage};\n${parts.join("")}`;
}

function columnLine(column: Column): string {
  return [
    `${column.name} ${typeName(column)}`,
    ...(column.default === undefined ? [] : [`DEFAULT ${column.default}`]),
    ...(column.generated === undefined ? [] : [`GENERATED ALWAYS AS (${column.generated}) STORED`]),
    ...(column.nullable ? [] : ["NOT NULL"]),
  ].join(" ");
}

export function tableComments(table: Table): string {
  const comment = (target: string, text: string) =>
    text === "" ? "" : `COMMENT ON ${target} IS ${sqlString(text)};\n`;
  return [
    comment(`TABLE ${inTableSchema(table)}`, table.comment),
    ...table.columns.map((column) => comment(`COLUMN ${inTableSchema(table)}.${column.name}`, column.comment)),
  ].join("");
}
