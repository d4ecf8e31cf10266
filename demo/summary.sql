\x
SELECT * FROM eros.status;
