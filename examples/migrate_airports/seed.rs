//! The data set the example starts from.

use std::error::Error;
use std::path::Path;

use crate::model::Airport;

/// Reads and checks all rows: an airport that the REST interface would refuse
/// must not get in by the back door.
pub(crate) fn read(path: impl AsRef<Path>) -> Result<Vec<Airport>, Box<dyn Error + Send + Sync>> {
    csv::Reader::from_path(path)?
        .into_deserialize()
        .map(|row| {
            let airport: Airport = row?;
            airport.check().map_err(|why| format!("{}: {why}", airport.icao))?;
            Ok(airport)
        })
        .collect()
}
