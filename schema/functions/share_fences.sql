#variable_conflict use_column
BEGIN
  -- In their order, so that two calls never wait in a circle. A name that was never taken may have none.
  INSERT INTO hawser_data.fences (what, epoch)
  SELECT 'peer:' || n.name, 0 FROM unnest(p_names) AS n (name) ORDER BY 1
  ON CONFLICT (what) DO NOTHING;
  SELECT count(*) INTO locked FROM (
    SELECT FROM hawser_data.fences AS f
     WHERE f.what = ANY (ARRAY(SELECT 'peer:' || n.name FROM unnest(p_names) AS n (name)))
     ORDER BY f.what FOR SHARE
  ) AS s;
END
