BEGIN
  IF p_waits THEN
    PERFORM FROM hawser_data.fences AS f WHERE f.what = 'dead-letters' FOR UPDATE;
  ELSE
    PERFORM FROM hawser_data.fences AS f WHERE f.what = 'dead-letters' FOR UPDATE SKIP LOCKED;
  END IF;
  locked := FOUND;
END
