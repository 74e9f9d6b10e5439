//! The entities of a building with their tags, and the sensor behind each point.

use crate::{
    catalog::{self, Sort},
    description::Description,
    design::Design,
    entity::{Entity, Point},
    noise::stream,
    sensor::Sensor,
    step::{Count, Counter},
};
use domain::tags::{TagValue, Tags};

/// Key of the site.
const SITE: &str = "site";

/// Collects entities, points and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) entities: Vec<Entity>,
    pub(super) points: Vec<Point>,
    pub(super) sensors: Vec<Sensor>,
    pub(super) counters: Vec<Counter>,
}

/// A thing as people call it, from its key: `floor-1.north` is `Floor 1 North`.
fn label(key: &str) -> String {
    let word = |word: &str| match word {
        "ahu" | "vav" => word.to_uppercase(),
        "co2" => "CO₂".to_owned(),
        "sp" => "setpoint".to_owned(),
        "cmd" => "command".to_owned(),
        _ => {
            let mut chars = word.chars();
            chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
        }
    };
    let words: Vec<String> = key.split(['.', '-']).map(word).collect();
    words.join(" ")
}

fn markers(names: &str) -> Tags {
    names.split(' ').map(|name| (name.to_owned(), TagValue::Marker)).collect()
}

fn reference(key: &str) -> TagValue {
    TagValue::Ref(key.to_owned())
}

fn measure(value: f64, unit: &str) -> TagValue {
    TagValue::Number(value, Some(unit.to_owned()))
}

impl Directory {
    /// Adds all of a building.
    pub(super) fn build(
        &mut self,
        description: &Description,
        design: &Design,
        floors: &[String],
        area: f64,
    ) {
        self.site(description, area);
        let floors: Vec<usize> =
            floors.iter().enumerate().map(|(number, key)| self.floor(key, number)).collect();
        let zones: Vec<usize> = design
            .zones
            .iter()
            .map(|zone| self.zone(&zone.key, zone.area, floors[zone.floor]))
            .collect();
        self.weather();
        for (index, ahu) in design.ahus.iter().enumerate() {
            self.air_handler(&ahu.key, index);
        }
        for (index, zone) in design.zones.iter().enumerate() {
            self.vav(&zone.key, zones[index], &design.ahus[zone.ahu].key, index);
        }
        self.plants(design.chillers.chillers);
        self.meters();
    }

    fn add(&mut self, key: &str, name: String, tags: Tags, parent: Option<usize>) -> usize {
        self.entities.push(Entity { key: key.to_owned(), name, tags, parent });
        self.entities.len() - 1
    }

    fn site(&mut self, description: &Description, area: f64) {
        let site = &description.site;
        let zone = &site.time_zone.value;
        let mut tags = markers("site");
        // Project Haystack names a time zone by its city.
        let city = zone.rsplit('/').next().unwrap_or(zone);
        tags.insert("tz".to_owned(), TagValue::Str(city.to_owned()));
        tags.insert("area".to_owned(), measure(area, "m²"));
        let mut number =
            |tag: &str, value: f64| tags.insert(tag.to_owned(), TagValue::Number(value, None));
        number("geoLat", site.latitude.value);
        number("geoLng", site.longitude.value);
        let elevation = site.elevation.as_ref().map_or(0.0, |at| at.value);
        tags.insert("geoElevation".to_owned(), measure(elevation, "m"));
        self.add(SITE, site.name.value.clone(), tags, None);
    }

    fn floor(&mut self, key: &str, number: usize) -> usize {
        let mut tags = markers("floor space");
        tags.insert("siteRef".to_owned(), reference(SITE));
        tags.insert("floorNum".to_owned(), TagValue::Number(number as f64, None));
        self.add(key, label(key), tags, Some(0))
    }

    fn zone(&mut self, key: &str, area: f64, floor: usize) -> usize {
        let mut tags = markers("hvac zone space");
        tags.insert("siteRef".to_owned(), reference(SITE));
        tags.insert("spaceRef".to_owned(), reference(&self.entities[floor].key));
        tags.insert("floorRef".to_owned(), reference(&self.entities[floor].key));
        tags.insert("area".to_owned(), measure(area, "m²"));
        self.add(key, label(key), tags, Some(floor))
    }

    /// Adds a piece of equipment of the site with its markers.
    fn equip(&mut self, key: &str, names: &str) -> usize {
        let mut tags = markers(names);
        tags.insert("equip".to_owned(), TagValue::Marker);
        tags.insert("siteRef".to_owned(), reference(SITE));
        self.add(key, label(key), tags, Some(0))
    }

    fn tag(&mut self, entity: usize, tag: &str, value: TagValue) {
        self.entities[entity].tags.insert(tag.to_owned(), value);
    }

    fn points(&mut self, equip: usize, sorts: &'static [Sort], index: usize) {
        for sort in sorts {
            self.point(equip, sort, index);
        }
    }

    fn point(&mut self, equip: usize, sort: &'static Sort, index: usize) -> String {
        let parent = &self.entities[equip];
        let key = format!("{}.{}", parent.key, sort.name);
        let name = format!("{} {}", parent.name, label(sort.name));
        let mut tags = markers(sort.tags);
        tags.insert("point".to_owned(), TagValue::Marker);
        tags.insert("siteRef".to_owned(), reference(SITE));
        tags.insert("equipRef".to_owned(), reference(&parent.key));
        if let Some(space) = parent.tags.get("spaceRef") {
            tags.insert("spaceRef".to_owned(), space.clone());
        }
        let entity = self.add(&key, name, tags, Some(equip));
        let unit = Some(sort.unit.to_owned()).filter(|unit| !unit.is_empty());
        self.points.push(Point { entity, kind: sort.kind(), unit });
        let sensor = Sensor { stream: stream(&key), key: key.clone(), sort, index, faulty: false };
        self.sensors.push(sensor);
        key
    }

    fn weather(&mut self) {
        let station = self.equip("weather", "weatherStation");
        self.points(station, &catalog::WEATHER, 0);
    }

    fn air_handler(&mut self, key: &str, index: usize) {
        let equip = self.equip(
            key,
            "ahu airHandlingEquip hvac chilledWaterCooling hotWaterHeating singleDuct vavZone",
        );
        self.tag(equip, "chilledWaterRef", reference("chilled-water"));
        self.tag(equip, "hotWaterRef", reference("boiler"));
        self.points(equip, &catalog::AHU, index);
        let fan = &catalog::AHU_FAN_ENERGY;
        let key = self.point(equip, fan, self.counters.len());
        self.counters.push(Counter { key, count: Count::Fan(index) });
    }

    fn vav(&mut self, zone_key: &str, zone: usize, ahu: &str, index: usize) {
        let key = format!("{zone_key}.vav");
        let equip = self.equip(&key, "vav airTerminalUnit hvac singleDuct hotWaterHeating");
        self.entities[equip].parent = Some(zone);
        self.tag(equip, "spaceRef", reference(zone_key));
        self.tag(equip, "airRef", reference(ahu));
        self.tag(equip, "hotWaterRef", reference("boiler"));
        self.points(equip, &catalog::VAV, index);
    }

    fn plants(&mut self, chillers: usize) {
        let plant = self.equip("chilled-water", "chilled water plant hvac");
        self.points(plant, &catalog::CHILLED_WATER_PLANT, 0);
        for index in 0..chillers {
            let key = format!("chiller-{}", index + 1);
            let equip = self.equip(&key, "chiller hvac chillerMechanismCentrifugal");
            self.entities[equip].parent = Some(plant);
            self.tag(equip, "equipRef", reference("chilled-water"));
            self.points(equip, &catalog::CHILLER, index);
        }
        let boiler = self.equip("boiler", "boiler hot water hvac");
        self.points(boiler, &catalog::BOILER, 0);
    }

    fn meters(&mut self) {
        self.meter("meter-main", "ac elec siteMeter", &catalog::ELECTRICITY, Count::Main);
        let sub = [
            ("meter-hvac", Count::Hvac),
            ("meter-plant", Count::Plant),
            ("meter-lighting", Count::Lighting),
            ("meter-plugs", Count::Plugs),
        ];
        for (key, count) in sub {
            let meter = self.meter(key, "ac elec", &catalog::ELECTRICITY, count);
            self.tag(meter, "submeterOf", reference("meter-main"));
        }
        self.meter("meter-gas", "naturalGas siteMeter", &catalog::GAS, Count::Gas);
        self.meter("meter-water", "domestic water siteMeter", &catalog::WATER, Count::Water);
        let heat = "chilled water thermal";
        self.meter("meter-chilled-water", heat, &catalog::CHILLED_WATER, Count::ChilledWater);
    }

    /// Adds a meter: its first point is the totalizer, the second its rate.
    fn meter(&mut self, key: &str, names: &str, sorts: &'static [Sort; 2], count: Count) -> usize {
        let equip = self.equip(key, &format!("meter {names}"));
        let total = self.counters.len();
        let key = self.point(equip, &sorts[0], total);
        self.point(equip, &sorts[1], total);
        self.counters.push(Counter { key, count });
        equip
    }
}
