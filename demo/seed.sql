-- A dating community: 20,000 members with profiles, interests and likes.
-- Every run makes the same one: all chance comes from roll().
CREATE ROLE dating;
CREATE SCHEMA dating AUTHORIZATION dating;
SET ROLE dating;
SET search_path = dating;

CREATE FUNCTION roll(id bigint, salt integer) RETURNS double precision
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS 'SELECT (pg_catalog.hashint8extended(id, salt) & 4294967295) / 4294967296.0::float8';
COMMENT ON FUNCTION roll IS 'a number from 0 to 1 (exclusive) that looks like chance and depends on nothing but the arguments';

CREATE TABLE city (
  city_id integer PRIMARY KEY,
  name text NOT NULL,
  x_km double precision NOT NULL,
  y_km double precision NOT NULL,
  size integer NOT NULL);

CREATE TABLE interest (
  interest_id integer PRIMARY KEY,
  name text NOT NULL);

CREATE TABLE member (
  member_id bigint PRIMARY KEY,
  name text NOT NULL,
  sex text NOT NULL,
  seeks text[] NOT NULL,
  age integer NOT NULL,
  seeks_age integer NOT NULL,
  give_or_take integer NOT NULL,
  city_id integer NOT NULL);

CREATE TABLE member_interest (
  member_id bigint,
  interest_id integer,
  PRIMARY KEY (member_id, interest_id));

CREATE TABLE likes (
  liker bigint,
  liked bigint,
  liked_at timestamptz NOT NULL,
  PRIMARY KEY (liker, liked));

INSERT INTO city
SELECT row_number() OVER (), * FROM (VALUES
  ('London', 530, 180, 20), ('Birmingham', 407, 287, 9), ('Manchester', 384, 398, 9),
  ('Glasgow', 259, 665, 7), ('Leeds', 430, 433, 7), ('Bristol', 358, 173, 6),
  ('Edinburgh', 325, 674, 5), ('Liverpool', 334, 390, 5), ('Sheffield', 435, 387, 5),
  ('Cardiff', 318, 176, 4), ('Newcastle', 425, 564, 4), ('Nottingham', 457, 340, 4),
  ('Belfast', 146, 529, 3), ('Brighton', 531, 104, 3), ('Leicester', 458, 304, 3),
  ('Norwich', 623, 308, 2), ('Southampton', 442, 112, 2), ('York', 460, 452, 2)) AS c;

-- the most popular first
INSERT INTO interest
SELECT n, name FROM unnest(string_to_array(
  'travel,music,films,cooking,hiking,reading,dogs,running,yoga,football,'
  'cycling,wine,dancing,photography,gardening,cats,theatre,coffee,swimming,camping,'
  'gaming,baking,concerts,museums,history,tennis,painting,skiing,languages,festivals,'
  'climbing,jazz,astronomy,chess,sailing,surfing,poetry,guitar,piano,board games,'
  'pottery,vegan food,podcasts,comedy,kayaking,martial arts,horses,volunteering,sewing,cars,'
  'fishing,boxing,singing,opera,architecture,science fiction,birdwatching,golf,rowing,ballet,'
  'karaoke,crosswords,mushrooms,meditation,film noir,crafts,badminton,trains,salsa,philosophy,'
  'street art,whisky,diving,magic,cheese,calligraphy,origami,fencing,beekeeping,juggling', ','))
  WITH ORDINALITY AS i (name, n);

-- Most are between 22 and 40, in the big cities, and seek the other sex within a few years of their age.
INSERT INTO member
SELECT id,
  CASE sex WHEN 'woman' THEN (string_to_array(
      'Amelia,Ava,Beth,Carys,Chloe,Daisy,Eilidh,Ella,Emma,Erin,Esme,Eva,Freya,Grace,Hannah,Holly,Iris,Isla,'
      'Ivy,Jade,Jess,Kate,Layla,Lily,Lucy,Maya,Megan,Mia,Molly,Nora,Olivia,Poppy,Priya,Rosie,Ruby,Sara,'
      'Skye,Sofia,Tara,Zara', ','))[1 + floor(40 * roll(id, 1))]
    ELSE (string_to_array(
      'Aaron,Adam,Alfie,Archie,Ben,Callum,Charlie,Dan,Dylan,Ed,Ethan,Ewan,Finn,Fred,George,Harry,Hugo,'
      'Ibrahim,Jack,Jamie,Joe,Josh,Kai,Leo,Liam,Louis,Luke,Max,Nathan,Noah,Omar,Oscar,Owen,Rhys,Rory,Ryan,'
      'Sam,Theo,Toby,Will', ','))[1 + floor(40 * roll(id, 1))] END,
  sex,
  CASE WHEN roll(id, 2) < 0.90 THEN ARRAY[CASE sex WHEN 'woman' THEN 'man' ELSE 'woman' END]
    WHEN roll(id, 2) < 0.96 THEN ARRAY[sex]
    ELSE ARRAY['woman', 'man'] END,
  age,
  greatest(20, age + CASE sex WHEN 'woman' THEN 2 ELSE -2 END + floor(3 * roll(id, 3)) - 1),
  3 + floor(5 * roll(id, 4)),
  city_id
FROM (
  SELECT id, CASE WHEN roll(id, 5) < 0.48 THEN 'woman' ELSE 'man' END AS sex,
    least(79, 19 - 7 * ln((1 - roll(id, 6)) * (1 - roll(id, 7))))::integer AS age,
    floor(roll(id, 8) * (SELECT sum(size) FROM city)) AS place
  FROM generate_series(1, 20000) AS id) AS born
JOIN (SELECT city_id, sum(size) OVER (ORDER BY city_id) - size AS lower, sum(size) OVER (ORDER BY city_id) AS upper
      FROM city) AS c ON place >= lower AND place < upper
ORDER BY id;

-- Four to nine interests each; few of them are very popular.
INSERT INTO member_interest
SELECT DISTINCT member_id, 1 + floor(80 * roll(member_id, 100 + n) ^ 1.6)::integer
FROM member, generate_series(1, 4 + floor(6 * roll(member_id, 9))::integer) AS n
ORDER BY 1, 2;

-- Members look around in their city, among those who share an interest, and everywhere; the
-- more attractive somebody is, the more likes he gets.
CREATE TEMP TABLE ranking AS
SELECT place, sex, row_number() OVER (PARTITION BY place, sex ORDER BY roll(member_id, 10)) AS rank, member_id
FROM (
  SELECT 'everywhere' AS place, sex, member_id FROM member
  UNION ALL SELECT 'city ' || city_id, sex, member_id FROM member
  UNION ALL SELECT 'interest ' || interest_id, sex, member_id FROM member JOIN member_interest USING (member_id)) AS p;
ANALYZE ranking;

CREATE TEMP TABLE look AS
SELECT member_id, place, sex, 1 + floor(members * roll(member_id, 4000 + n) ^ 2)::bigint AS rank
FROM (
  SELECT member_id, n,
    CASE WHEN roll(member_id, 1000 + n) < 0.20 THEN 'everywhere'
      WHEN roll(member_id, 1000 + n) < 0.60 THEN 'city ' || city_id
      ELSE 'interest ' || interests[1 + floor(cardinality(interests) * roll(member_id, 2000 + n))] END AS place,
    seeks[1 + floor(cardinality(seeks) * roll(member_id, 3000 + n))] AS sex
  FROM member
  JOIN (SELECT member_id, array_agg(interest_id ORDER BY interest_id) AS interests
        FROM member_interest GROUP BY 1) AS i USING (member_id),
  generate_series(1, 6 + floor(80 * roll(member_id, 11) ^ 2)::integer) AS n) AS l
JOIN (SELECT place, sex, count(*) AS members FROM ranking GROUP BY 1, 2) AS r USING (place, sex);
ANALYZE look;

INSERT INTO likes
SELECT DISTINCT ON (a.member_id, b.member_id) a.member_id, b.member_id,
  now() - interval '90 days' * roll(a.member_id * 20000 + b.member_id, 12) ^ 2 - interval '1 day'
FROM look
JOIN ranking USING (place, sex, rank)
JOIN member AS a ON a.member_id = look.member_id
JOIN member AS b ON b.member_id = ranking.member_id
WHERE a.sex = ANY (b.seeks) AND abs(b.age - a.seeks_age) <= a.give_or_take AND a.member_id <> b.member_id;

-- Every fourth like is returned.
INSERT INTO likes
SELECT l.liked, l.liker, l.liked_at + (now() - interval '1 day' - l.liked_at) * roll(l.liker * 20000 + l.liked, 13)
FROM likes AS l
JOIN member AS a ON a.member_id = l.liked
JOIN member AS b ON b.member_id = l.liker
WHERE roll(l.liker * 20000 + l.liked, 14) < 0.25 AND abs(b.age - a.seeks_age) <= a.give_or_take
ON CONFLICT DO NOTHING;

ALTER TABLE member ADD FOREIGN KEY (city_id) REFERENCES city;
ALTER TABLE member_interest ADD FOREIGN KEY (member_id) REFERENCES member,
  ADD FOREIGN KEY (interest_id) REFERENCES interest;
ALTER TABLE likes ADD FOREIGN KEY (liker) REFERENCES member, ADD FOREIGN KEY (liked) REFERENCES member;
CREATE INDEX ON member (city_id);
CREATE INDEX ON member_interest (interest_id, member_id);
CREATE INDEX ON likes (liker, liked_at);
CREATE INDEX ON likes (liked, liked_at);
VACUUM ANALYZE city, interest, member, member_interest, likes;
DROP TABLE ranking, look;
RESET ROLE;
