/**
 * SQL expression: oid of a relation, which is NULL if there is none. A cast to regclass fails for a role that may not use
 * the schema.
 *
 * @param name its name with its schema, which need no quoting
 */
export function relationOidSql(name: string): string {
  const [schema, relation] = name.split(".");
  return (
    "(SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace" +
    ` WHERE n.nspname = '${schema}' AND c.relname = '${relation}')`
  );
}
