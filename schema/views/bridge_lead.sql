-- LIMIT: programs of the second step update a table of this name, and nobody updates a view that has one.
SELECT 1 AS id, o.epoch, o.owner, o.beat, to_timestamp((o.state ->> 'progress_at')::bigint / 1000.0) AS progress_at,
       to_timestamp((o.state ->> 'complete_since')::bigint / 1000.0) AS complete_since, o.state ->> 'behind' AS behind,
       to_timestamp((o.state ->> 'complete_until')::bigint / 1000.0) AS complete_until
  FROM hawser_data.owners AS o
 WHERE o.what = 'serve'
 LIMIT 1
