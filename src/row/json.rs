//! placeholder until merged
/// x
pub struct JsonError;
/// x
pub fn to_text(_: &[u8]) -> Result<String, JsonError> {
    Err(JsonError)
}
/// x
pub fn to_sql(_: &[u8], _: &mut Vec<u8>) -> Result<(), JsonError> {
    Err(JsonError)
}
